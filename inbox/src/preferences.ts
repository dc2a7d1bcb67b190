import { html, nothing } from "lit/html.js";
import { CHOICES, CHOOSE, type Preferences, type Quiet, type TypeChoice } from "./api.js";
import { fill, named } from "./labels.js";
import { button } from "./panel.js";
import type { Screen } from "./screen.js";

const WEEK = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];

/** What the user wants to hear, as the server has it: type × channel, and quiet hours. */
export class Choices {
  #stored: Preferences | undefined;
  /** Those that were there when this was opened: what was switched off can be switched on again. */
  #quiet: Quiet[] = [];

  constructor(readonly screen: Screen) {}

  async read(): Promise<void> {
    this.#stored = undefined;
    const answer = await this.screen.ask<{ preferences: Preferences }>(CHOICES);
    this.#stored = answer?.preferences;
    this.#quiet = this.#stored?.quietHours ?? [];
  }

  /** Only what was touched: to switch marketing on is to give consent to it. */
  async #choose(wish: object): Promise<void> {
    const { screen } = this;
    const input = { ...wish, version: this.#stored!.version };
    const answer = await screen.ask<{ updatePreferences: Preferences }>(CHOOSE, { input });
    if (answer) this.#stored = answer.updatePreferences;
    else {
      const { problem } = screen; // and what is stored, perhaps by another screen
      await this.read();
      screen.problem = problem;
    }
    screen.changed();
  }

  shown() {
    const { labels, problem } = this.screen;
    const stored = this.#stored;
    if (!stored) {
      const again = button(labels.retry, () => void this.read());
      return html`<div part="state">${problem ? again : labels.loading}</div>`;
    }
    return html`<div part="preferences">
      <table>
        <caption>
          ${labels.channels}
        </caption>
        <tr>
          <td></td>
          <th scope="col">${labels.on}</th>
          ${stored.types[0]?.channels.map(
            ({ channel }) => html`<th scope="col">${named(labels, channel)}</th>`,
          )}
        </tr>
        ${stored.types.map((type) => this.#row(type))}
      </table>
      <p id="locked">${labels.locked}</p>
      ${this.#quiet.length ? this.#quietHours(stored) : nothing}
    </div>`;
  }

  #row({ type, enabled, channels }: TypeChoice) {
    const name = named(this.screen.labels, type);
    const cell = (channel: string, on: boolean, off: boolean, locked: boolean, wish: Wish) =>
      html`<td>
        ${box(`${name}: ${channel}`, on, off, locked, (on) =>
          this.#choose({ types: [{ type, ...wish(on) }] }),
        )}
      </td>`;
    const isLocked = channels.some((one) => one.locked);
    return html`<tr>
      <th scope="row">${name}</th>
      ${cell(this.screen.labels.on, enabled, false, isLocked, (enabled) => ({ enabled }))}
      ${channels.map(({ channel, locked, ...one }) =>
        cell(
          named(this.screen.labels, channel),
          one.enabled && enabled,
          !enabled,
          locked,
          (enabled) => ({ channels: [{ channel, enabled }] }),
        ),
      )}
    </tr>`;
  }

  #quietHours({ timezone, quietHours }: Preferences) {
    const { labels, times } = this.screen;
    const hours = ({ days, start, end }: Quiet["windows"][0]) => {
      const names = days.map((day) => times.weekday(WEEK.indexOf(day))).join(", ");
      return `${days.length < WEEK.length ? names : ""} ${start}–${end}`;
    };
    return html`<p>${labels.quietHours}</p>
      ${this.#quiet.map(({ channel, action, windows }) => {
        const name = `${named(labels, channel)}: ${windows.map(hours).join("; ")}`;
        const on = quietHours.some((one) => one.channel === channel);
        const wish = (on: boolean) =>
          this.#choose({ quietHours: [{ channel, action, windows: on ? windows : [] }] });
        return html`<label>${box(name, on, false, false, wish)} ${name}</label>`;
      })}
      <p>${fill(labels.quietZone, { zone: timezone })}</p>`;
  }
}

type Wish = (on: boolean) => object;

/** `off`: something above it is. `locked`: it can't be switched off, and is said why. */
function box(name: string, on: boolean, off: boolean, locked: boolean, choose: Wish) {
  return html`<input
    type="checkbox"
    aria-label=${name}
    aria-describedby=${locked ? "locked" : nothing}
    .checked=${on}
    ?disabled=${locked || off}
    @change=${(event: Event) => choose((event.target as HTMLInputElement).checked)}
  />`;
}
