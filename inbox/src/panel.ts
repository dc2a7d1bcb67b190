import { html, nothing } from "lit/html.js";
import { BACK, BELL, CHECK, CLOSE, GEAR, iconButton } from "./icons.js";
import { fill, named } from "./labels.js";
import { list } from "./list.js";
import type { Screen } from "./screen.js";

const TABS = ["ALL", "UNREAD", "ORDER_UPDATE", "PROMOTION", "RECOMMENDATION"];
const MOST_TOLD = 99;

/** The bell, and the popover that it opens: the browser sees to Escape, to a click elsewhere, and
 * to where the focus goes. */
export function inbox(screen: Screen, toggled: (event: ToggleEvent) => void) {
  const { labels, isOpen } = screen;
  const n = screen.feed.unread;
  return html`<button
      part="bell"
      popovertarget="panel"
      aria-haspopup="dialog"
      aria-controls="panel"
      aria-expanded=${isOpen}
      aria-label=${n ? fill(labels.titleUnread, { n }) : labels.title}
    >
      ${BELL}
      ${n
        ? html`<span part="badge">${n > MOST_TOLD ? `${MOST_TOLD}+` : n}</span>`
        : nothing}
    </button>
    <div
      id="panel"
      part="panel"
      popover
      autofocus
      tabindex="-1"
      role="dialog"
      aria-label=${labels.title}
      @beforetoggle=${toggled}
      @toggle=${toggled}
    >
      ${isOpen ? panel(screen) : nothing}
    </div>`;
}

function panel(screen: Screen) {
  const { labels, settings, problem, archived, feed } = screen;
  const canMark = feed.unread && /ALL|UNREAD/.test(feed.tab);
  return html`<div part="header">
      ${settings
        ? iconButton("back", labels.back, BACK, () => screen.showSettings(false))
        : nothing}
      <h2>${settings ? labels.settings : labels.title}</h2>
      ${settings
        ? nothing
        : [
            canMark ? iconButton("", labels.markAll, CHECK, () => screen.readAll()) : nothing,
            screen.connection.state === "signed-out"
              ? nothing
              : iconButton("", labels.settings, GEAR, () => screen.showSettings(true)),
          ]}
      ${iconButton("close", labels.close, CLOSE, (event) =>
        (event.target as Element).closest<HTMLElement>("[popover]")!.hidePopover(),
      )}
    </div>
    ${settings
      ? screen.choices.shown()
      : html`${tabs(screen)}
          <div part="list" role="tabpanel" id="items" aria-labelledby=${feed.tab}>
            ${contents(screen)}
          </div>`}
    ${problem || archived
      ? html`<div part="notice" role="status">
          ${problem || [labels.archived, button(labels.undo, () => screen.undo())]}
        </div>`
      : nothing}`;
}

function tabs(screen: Screen) {
  const { labels, feed } = screen;
  return html`<div
    part="tabs"
    role="tablist"
    aria-label=${labels.title}
    @keydown=${turn}
  >
    ${TABS.map(
      (tab) =>
        html`<button
          role="tab"
          part="tab"
          id=${tab}
          aria-selected=${tab === feed.tab}
          aria-controls="items"
          tabindex=${tab === feed.tab ? 0 : -1}
          @click=${() => screen.show(tab)}
        >
          ${named(labels, tab)}
        </button>`,
    )}
  </div>`;
}

/** Arrow keys, as the tabs pattern has them; in a right-to-left page the other way round. */
function turn(event: KeyboardEvent): void {
  const tab = event.target as HTMLElement;
  const all = [...tab.parentElement!.children] as HTMLElement[];
  const forward = tab.matches(":dir(rtl)") ? -1 : 1;
  const place = all.indexOf(tab);
  const next = {
    Home: 0,
    End: -1,
    ArrowRight: place + forward,
    ArrowLeft: place - forward,
  }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  const chosen = all.at(next % all.length)!;
  chosen.focus();
  chosen.click();
}

function contents(screen: Screen) {
  const { feed, labels, connection } = screen;
  const isAway = connection.state === "away" || !navigator.onLine;
  const again = button(labels.retry, () => screen.retry());
  const problem =
    connection.state === "signed-out"
      ? labels.signIn
      : isAway
        ? labels.away
        : feed.hasFailed
          ? labels.failed
          : "";
  if (feed.items.length) {
    return html`${problem
      ? html`<div part="notice" role="status">${problem} ${again}</div>`
      : nothing}
    ${list(screen)}`;
  }
  if (!problem && !feed.isLoaded) {
    return html`<div part="loading" role="status" aria-label=${labels.loading}></div>`;
  }
  const empty = feed.tab === "UNREAD" ? labels.emptyUnread : labels.empty;
  return html`<div part="state">
    ${BELL}${problem || empty}${problem ? again : nothing}
  </div>`;
}

export function button(label: string, act: () => void) {
  return html`<button part="button text-button" @click=${act}>${label}</button>`;
}
