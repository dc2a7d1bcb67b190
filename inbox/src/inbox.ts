import { render } from "lit/html.js";
import { Connection, type GetToken } from "./connection.js";
import type { Item } from "./feed.js";
import css from "./inbox.css";
import { ENGLISH, fill, type Labels } from "./labels.js";
import { drawItems } from "./list.js";
import { inbox } from "./panel.js";
import { Screen } from "./screen.js";
import { timesIn } from "./time.js";

const GATHERED = 1_000; // ms: what arrives within it is announced together
const MINUTE = 60_000;
const NEAR_END = 400; // px
const CALM = "(prefers-reduced-motion: reduce)";
const SWING = { rotate: ["0deg", "14deg", "-11deg", "7deg", "0deg"] };

const styles = new CSSStyleSheet();
styles.replaceSync(css);

/** `<tidings-inbox endpoint="/graphql" token="…">`: docs/inbox.md says what it takes and tells. */
export class TidingsInbox extends HTMLElement {
  static observedAttributes = ["endpoint", "token"];

  #getToken: GetToken | null | undefined;
  #labels = ENGLISH;
  #screen: Screen | undefined;
  #left: AbortController | undefined;
  #news: Item[] = [];
  #told = 0;
  #painting = 0;
  #spoken = document.createElement("div");
  #mount = document.createElement("div");

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [styles];
    root.append(this.#mount, this.#spoken);
    this.#spoken.className = "hidden";
    this.#spoken.role = "status";
  }

  get getToken(): GetToken | null | undefined {
    return this.#getToken;
  }

  /** Another function is somebody else's; none signs out. */
  set getToken(getToken: GetToken | null | undefined) {
    const isSame = getToken === this.#getToken;
    this.#getToken = getToken;
    if (!isSame) this.#begin();
  }

  get labels(): Labels {
    return this.#labels;
  }

  set labels(labels: Partial<Labels>) {
    this.#labels = { ...ENGLISH, ...labels };
    if (this.#screen) this.#screen.labels = this.#labels;
    this.#changed();
  }

  connectedCallback(): void {
    for (const name of ["getToken", "labels"] as const) {
      if (!Object.hasOwn(this, name)) continue; // set before this script had been loaded
      const given = this[name];
      delete (this as Partial<this>)[name];
      Object.assign(this, { [name]: given });
    }
    this.#left = new AbortController();
    const { signal } = this.#left;
    const hasten = () => {
      this.#changed();
      if (!document.hidden) this.#screen?.connection.hasten();
    };
    const listen = (names: string[], listener: () => void) =>
      names.forEach((name) => addEventListener(name, listener, { signal }));
    listen(["online", "offline"], hasten);
    document.addEventListener("visibilitychange", hasten, { signal });
    listen(["resize", "scroll"], () => this.#place());
    this.#mount.addEventListener("scroll", () => this.#readOn(), { signal, capture: true });
    const clock = setInterval(() => this.#changed(), MINUTE);
    signal.addEventListener("abort", () => clearInterval(clock));
    this.#begin();
  }

  disconnectedCallback(): void {
    this.#left?.abort();
    this.#left = undefined;
    this.#screen!.isOpen = false; // what leaves the page is closed
    this.#screen!.connection.close();
  }

  attributeChangedCallback(_: string, before: string | null, now: string | null): void {
    if (before !== now) this.#begin();
  }

  /** As somebody, or nobody. */
  #begin(): void {
    if (!this.#left) return;
    this.#screen?.connection.close();
    const connection: Connection = new Connection(
      this.getAttribute("endpoint") ?? "/graphql",
      () => (this.#getToken ? this.#getToken() : this.getAttribute("token")),
      () => (connection.state === "signed-out" ? this.#show(connection) : this.#changed()),
      () => void this.#screen!.feed.begin(connection),
    );
    this.#show(connection);
  }

  /** Nothing that was shown, or said, before stays. */
  #show(connection: Connection): void {
    const isOpen = this.#screen?.isOpen ?? false;
    this.#news = [];
    this.#spoken.textContent = "";
    this.#screen = new Screen(
      connection,
      this.#labels,
      timesIn(this.lang || navigator.language),
      () => this.#changed(),
      (items) => this.#arrived(items),
      () => this.#begin(),
    );
    this.#screen.isOpen = isOpen;
    this.#changed();
  }

  #changed(): void {
    const count = this.#screen?.feed.unread;
    if (count === undefined) return;
    if (this.#told !== count) this.#tell("tidings-unread", { count });
    this.#told = count;
    this.#painting ||= requestAnimationFrame(() => this.#paint());
  }

  #paint(): void {
    cancelAnimationFrame(this.#painting);
    this.#painting = 0;
    const screen = this.#screen!;
    const toggled = ({ type, newState }: ToggleEvent) => {
      // It is filled before it opens, and emptied once the focus has left it.
      if ((type === "toggle") !== (newState === "closed")) return;
      screen.isOpen = newState === "open";
      screen.showSettings(false);
      screen.archived = undefined;
      this.#paint();
      this.#changed(); // once more when it is shown, and has a height
      const { activeElement } = this.getRootNode() as Document;
      const isFocusLost = [null, this, document.body].includes(activeElement as HTMLElement);
      if (!screen.isOpen && isFocusLost) (this.#mount.firstElementChild as HTMLElement).focus();
    };
    const open = (notification: Item) =>
      this.#tell("tidings-open", { notification, href: notification.href });
    const root = this.shadowRoot!;
    const focused = root.activeElement as HTMLElement | null;
    render(inbox(screen, toggled), this.#mount);
    const feed = this.#mount.querySelector("[role=feed]");
    if (feed) drawItems(feed, screen, open);
    if (!screen.isOpen) return;
    // What had the focus has gone, or was moved.
    const panel = this.#mount.lastElementChild as HTMLElement;
    if (focused && !root.activeElement) (focused.isConnected ? focused : panel).focus();
    this.#place();
    this.#readOn();
    screen.painted();
  }

  /** The panel goes below the bell, or above it, where there is more room. */
  #place(): void {
    const [bell, panel] = this.#mount.children as unknown as [HTMLElement, HTMLElement];
    const { left, right, top, bottom } = bell.getBoundingClientRect();
    const { clientWidth, clientHeight } = document.documentElement;
    const isAbove = top > clientHeight - bottom;
    const edge = isAbove ? clientHeight - top : bottom;
    const end = this.matches(":dir(rtl)") ? left : clientWidth - right;
    panel.style.setProperty("--_edge", `${Math.max(0, edge)}px`);
    panel.style.setProperty("--_end", `${end}px`);
    panel.toggleAttribute("above", isAbove);
  }

  #readOn(): void {
    const scroll = this.#mount.querySelector("#items");
    if (!scroll?.clientHeight) return; // as long as it is not shown, it has no end either
    const below = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    if (below < NEAR_END) void this.#screen!.feed.more();
  }

  /** One sentence for all that arrives within a moment; the bell swings. */
  #arrived(items: Item[]): void {
    if (items.length && !this.#news.length) {
      setTimeout(() => {
        const [first, ...others] = this.#news.splice(0);
        if (!first) return; // it was somebody else's
        const { arrived, arrivedMany } = this.#labels;
        const n = 1 + others.length;
        this.#spoken.textContent = fill(n > 1 ? arrivedMany : arrived, { n, title: first.title });
        if (matchMedia(CALM).matches) return;
        this.#mount.querySelector("svg")?.animate(SWING, 700);
      }, GATHERED);
    }
    this.#news.push(...items);
  }

  /** False: the page has seen to it itself. */
  #tell(name: string, detail: object): boolean {
    const options = { detail, bubbles: true, composed: true, cancelable: true };
    return this.dispatchEvent(new CustomEvent(name, options));
  }
}

customElements.define("tidings-inbox", TidingsInbox);
