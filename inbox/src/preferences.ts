import { html, nothing } from "lit/html.js";
import { CHOICES, CHOOSE, type Preferences, type Quiet, type TypeChoice } from "./api.js";
import { fill, named } from "./labels.js";
import { button } from "./panel.js";
import type { Screen } from "./screen.js";

const WEEK = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];
const NIGHT: Omit<Quiet, "channel"> = { windows: [{ start: "22:00", end: "07:00" }] };

/** What the user wants to hear, as the server has it: type × channel, and quiet hours. */
export class Choices {
  #stored: Preferences | undefined;
  /** Quiet hours that were there before: what was switched off can be switched on again. */
  #quiet: Quiet[] = [];
  #chosen = Promise.resolve();

  constructor(readonly screen: Screen) {}

  async read(): Promise<void> {
    this.#stored = undefined;
    const answer = await this.screen.ask<{ preferences: Preferences }>(CHOICES);
    this.#stored = answer?.preferences;
  }

  /** Only what was touched: to switch marketing on is to give consent to it. One after the other,
   * as each makes a version. */
  #choose(wish: object): void {
    this.#chosen = this.#chosen.then(() => this.#send(wish));
  }

  async #send(wish: object): Promise<void> {
    const { screen } = this;
    if (!this.#stored) return;
    const { version, quietHours } = this.#stored;
    const input = { ...wish, version };
    const answer = await screen.ask<{ updatePreferences: Preferences }>(CHOOSE, { input });
    if (answer) {
      this.#stored = answer.updatePreferences;
      this.#quiet = [...quietHours, ...this.#quiet];
    } else {
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
      ${this.#quietHours(stored)}
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

  #quietHours({ timezone, quietHours, types }: Preferences) {
    const { labels } = this.screen;
    const channels = types[0]?.channels.filter(({ channel }) => channel !== "IN_APP");
    return html`<p>${labels.quietHours}</p>
      ${channels?.map(({ channel }) => {
        const isIt = (one: Quiet) => one.channel === channel;
        const stored = quietHours.find(isIt);
        const { action, windows } = stored ?? this.#quiet.find(isIt) ?? NIGHT;
        const name = named(labels, channel);
        const choose = (windows: Windows) =>
          this.#choose({ quietHours: [{ channel, action, windows }] });
        return html`<label>
            ${box(`${labels.quietHours}: ${name}`, !!stored, false, false, (on) =>
              choose(on ? windows : []),
            )}
            ${name}
          </label>
          ${stored ? this.#windows(name, windows, choose) : nothing}`;
      })}
      <p>${fill(labels.quietZone, { zone: timezone })}</p>`;
  }

  #windows(name: string, windows: Windows, choose: (windows: Windows) => void) {
    const { labels, times } = this.screen;
    return windows.map((hours) => {
      const { days } = hours;
      const time = (which: "start" | "end") =>
        html`<input
          type="time"
          aria-label="${name}: ${labels[which]}"
          .value=${hours[which]}
          @blur=${({ target }: Event) => {
            const { value } = target as HTMLInputElement;
            if (value && value !== hours[which]) {
              hours[which] = value; // at once: the other may be next, before this is answered
              choose(windows);
            }
          }}
        />`;
      const names = days!.map((day) => times.weekday(WEEK.indexOf(day))).join(", ");
      return html`<p>${time("start")}– ${time("end")} ${days!.length < WEEK.length ? names : ""}</p>`;
    });
  }
}

type Windows = Quiet["windows"];
type Wish = (on: boolean) => object;
type Choose = (on: boolean) => void;

/** `off`: something above it is. `locked`: it can't be switched off, and is said why. */
function box(name: string, on: boolean, off: boolean, locked: boolean, choose: Choose) {
  return html`<input
    type="checkbox"
    aria-label=${name}
    aria-describedby=${locked ? "locked" : nothing}
    .checked=${on}
    ?disabled=${locked || off}
    @change=${(event: Event) => choose((event.target as HTMLInputElement).checked)}
  />`;
}
