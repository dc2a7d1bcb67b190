import { html, nothing, render } from "lit/html.js";
import { type Item, MOST } from "./feed.js";
import { ARCHIVE, iconButton, iconOf, WHY } from "./icons.js";
import { fill } from "./labels.js";
import type { Screen } from "./screen.js";

/** Tells the page that an item is opened; false: the page has seen to it itself. */
export type Open = (item: Item) => boolean;

/** The list of a tab, as the feed pattern of the ARIA authoring practices has it. */
export function list({ feed, labels }: Screen) {
  return html`<div
      role="feed"
      aria-label=${labels.title}
      aria-busy=${feed.isReading}
      @keydown=${walk}
    ></div>
    ${feed.hasMore && feed.items.length >= MOST
      ? html`<p part="state">${fill(labels.full, { n: MOST })}</p>`
      : nothing}`;
}

/** Each item has an element of its own, and keeps it: so does the focus. */
export function drawItems(place: Element, screen: Screen, open: Open): void {
  const { items } = screen.feed;
  const elements = new Map([...place.children].map((element) => [element.id, element]));
  for (const { id } of items) elements.delete(id);
  for (const gone of elements.values()) gone.remove();
  let next = place.firstElementChild;
  items.forEach((item, index) => {
    let element = next;
    if (next?.id === item.id) next = next.nextElementSibling;
    else {
      element = place.querySelector(`[id="${item.id}"]`) ?? document.createElement("div");
      element.id = item.id;
      place.insertBefore(element, next);
    }
    render(row(screen, item, index, open), element as HTMLElement);
  });
}

function row(screen: Screen, item: Item, index: number, open: Open) {
  const { labels, times, feed } = screen;
  const { id, href, at, read } = item;
  // Into another tab it goes without the page, and a right click opens nothing.
  const opened = (event: MouseEvent) => {
    const { button, ctrlKey, metaKey, shiftKey, altKey } = event;
    if (button > 1) return;
    const isPlain = !(button || ctrlKey || metaKey || shiftKey || altKey);
    if (isPlain && !open(item)) event.preventDefault();
    screen.read(item);
  };
  const title = html`<span id="title-${id}" dir="auto">${item.title}</span>`;
  const isExplained = screen.explained === id;
  return html`<article
    part="item ${read ? "" : "item-unread"}"
    tabindex="0"
    aria-posinset=${index + 1}
    aria-setsize=${feed.hasMore ? -1 : feed.items.length}
    aria-labelledby="title-${id}"
    aria-describedby="new-${id} body-${id} time-${id}"
  >
    <span part="icon">${iconOf(item.type)}</span>
    <div class="words">
      ${href
        ? html`<a part="title" href=${href} @click=${opened} @auxclick=${opened}>${title}</a>`
        : html`<button part="title" @click=${opened}>${title}</button>`}
      <p part="body" id="body-${id}" dir="auto">${item.body}</p>
      <div class="foot">
        <span class="hidden" id="new-${id}">${read ? "" : labels.UNREAD}</span>
        <time id="time-${id}" part="time" datetime=${item.sentAt} title=${times.exact(at)}
          >${times.short(at)}</time
        >
        ${iconButton("", labels.why, WHY, () => screen.explain(id), isExplained)}
        ${iconButton("", labels.archive, ARCHIVE, (event) => {
          leave(event);
          void screen.archive(item);
        })}
      </div>
      ${isExplained ? why(screen) : nothing}
    </div>
  </article>`;
}

function why({ steps, labels }: Screen) {
  if (!steps?.length) return html`<p part="why">${steps ? labels.whyUnknown : labels.loading}</p>`;
  const words = steps.map((step) => html`<li class=${step.spoke ? "spoke" : ""}>${step.words}</li>`);
  return html`<ol part="why">${words}</ol>`;
}

/** The focus goes to the neighbour of what is about to go. */
function leave(event: Event): void {
  const own = (event.target as Element).closest("[role=feed] > *")!;
  const next = own.nextElementSibling ?? own.previousElementSibling;
  ((next?.firstElementChild ?? own.closest("[popover]")) as HTMLElement).focus();
}

/** Page Up and Page Down go from item to item, Ctrl-Home and Ctrl-End leave, Enter opens. */
function walk(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  const article = target.closest("article")!;
  const panel = target.closest("[popover]")!;
  const key = (event.ctrlKey ? "Ctrl-" : "") + event.key;
  const next = {
    PageDown: article.parentElement!.nextElementSibling?.firstElementChild,
    PageUp: article.parentElement!.previousElementSibling?.firstElementChild,
    "Ctrl-Home": panel.querySelector("[aria-selected=true]"),
    "Ctrl-End": panel.querySelector("[part~=close]"),
  }[key] as HTMLElement | null | undefined;
  if (key === "Enter" && target === article) article.querySelector<HTMLElement>("[part=title]")!.click();
  else if (!next) return;
  event.preventDefault();
  next?.focus();
}
