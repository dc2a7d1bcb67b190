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
  #news = 0;
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

  /** Another function counts from the next connection on; none signs out. */
  set getToken(getToken: GetToken | null | undefined) {
    const goesOn = this.#getToken && getToken && this.#screen?.connection.state !== "signed-out";
    this.#getToken = getToken;
    if (!goesOn) this.#begin();
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
    const hasten = () => document.hidden || this.#screen?.connection.hasten();
    addEventListener("online", hasten, { signal });
    document.addEventListener("visibilitychange", hasten, { signal });
    addEventListener("offline", () => this.#changed(), { signal });
    addEventListener("resize", () => this.#place(), { signal });
    addEventListener("scroll", () => this.#place(), { signal });
    this.#mount.addEventListener("scroll", () => this.#readOn(), { signal, capture: true });
    const clock = setInterval(() => this.#changed(), MINUTE);
    signal.addEventListener("abort", () => clearInterval(clock));
    this.#begin();
  }

  disconnectedCallback(): void {
    this.#left?.abort();
    this.#left = undefined;
    this.#screen?.connection.close();
  }

  attributeChangedCallback(_: string, before: string | null, now: string | null): void {
    if (before !== now) this.#begin();
  }

  /** As somebody, or nobody: nothing that was shown before stays. */
  #begin(): void {
    if (!this.#left) return;
    this.#screen?.connection.close();
    const isOpen = this.#screen?.isOpen ?? false;
    const screen = new Screen(
      this.#labels,
      timesIn(this.lang || navigator.language),
      () => this.#changed(),
      (items) => this.#arrived(items),
      () => this.#begin(),
    );
    screen.isOpen = isOpen;
    screen.connection = new Connection(
      this.getAttribute("endpoint") ?? "/graphql",
      () => (this.#getToken ? this.#getToken() : this.getAttribute("token")),
      () => this.#changed(),
      () => void screen.feed.begin(screen.connection),
    );
    this.#screen = screen;
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
    const toggled = ({ newState }: ToggleEvent) => {
      screen.isOpen = newState === "open";
      screen.showSettings(false);
      screen.archived = undefined;
      this.#paint();
    };
    const open = (notification: Item) =>
      this.#tell("tidings-open", { notification, href: notification.href });
    render(inbox(screen, toggled), this.#mount);
    const feed = this.#mount.querySelector("[role=feed]");
    if (feed) drawItems(feed, screen, open);
    if (!screen.isOpen) return;
    this.#place();
    this.#readOn();
    screen.painted();
  }

  /** The panel goes below the bell. */
  #place(): void {
    const [bell, panel] = this.#mount.children as unknown as [HTMLElement, HTMLElement];
    const { left, right, bottom } = bell.getBoundingClientRect();
    const end = this.matches(":dir(rtl)") ? left : document.documentElement.clientWidth - right;
    panel.style.setProperty("--_top", `${Math.max(0, bottom)}px`);
    panel.style.setProperty("--_end", `${end}px`);
  }

  #readOn(): void {
    const scroll = this.#mount.querySelector("#items");
    if (!scroll) return;
    const below = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    if (below < NEAR_END) void this.#screen!.feed.more();
  }

  /** One sentence for all that arrives within a moment; the bell swings. */
  #arrived([first, ...others]: Item[]): void {
    if (!this.#news) {
      setTimeout(() => {
        const n = this.#news;
        const { arrived, arrivedMany } = this.#labels;
        this.#spoken.textContent = fill(n > 1 ? arrivedMany : arrived, { n, title: first!.title });
        this.#news = 0;
        if (matchMedia(CALM).matches) return;
        this.#mount.querySelector("svg")?.animate(SWING, 700);
      }, GATHERED);
    }
    this.#news += 1 + others.length;
  }

  /** False: the page has seen to it itself. */
  #tell(name: string, detail: object): boolean {
    const options = { detail, bubbles: true, composed: true, cancelable: true };
    return this.dispatchEvent(new CustomEvent(name, options));
  }
}

customElements.define("tidings-inbox", TidingsInbox);
