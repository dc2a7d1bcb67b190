import {
  ADDED,
  CHANGED,
  type Change,
  type Edge,
  linkOf,
  type Notification,
  PAGE,
  type Page,
  UNREAD,
} from "./api.js";
import type { Connection } from "./connection.js";

const PAGE_SIZE = 20;
const LARGEST_PAGE = 100;
const EMPTY_AGAIN = 1_000; // ms
export const MOST = 300; // rows

/** "ALL", "UNREAD", or a type of notifications. */
export type Tab = string;

export interface Item extends Notification {
  /** Milliseconds since 1970. */
  at: number;
  href: string | undefined;
  cursor: string | undefined;
}

/** What is shown: the newest of one tab, and how many are unread in all.
 *
 * With each connection it reads what is stored, and follows from there. What happens while it
 * reads waits until it has read. */
export class Feed {
  items: Item[] = [];
  unread = 0;
  tab: Tab = "ALL";
  hasMore = false;
  isReading = false;
  hasFailed = false;
  isLoaded = false;
  /** The cursor of the newest that came, whatever the tab: where the next connection goes on. */
  newest: string | undefined;
  #newestAt = 0;
  #connection!: Connection;
  #kept = new Set<string>();
  #turn = 0;
  #waiting: (() => void)[] = [];

  /** `changed`: there is something else to show. `arrived`: and this is what is new. */
  constructor(
    readonly changed: () => void,
    readonly arrived: (items: Item[]) => void,
  ) {}

  /** Begin anew with what is stored, on a connection that has just been made. */
  async begin(connection: Connection): Promise<void> {
    this.#connection = connection;
    connection.follow<{ unreadCount: number }>(UNREAD, {}, ({ unreadCount }) => {
      this.unread = unreadCount;
      this.changed();
    });
    connection.follow<{ notificationChanged: Change }>(CHANGED, {}, (data) =>
      this.#inTurn(() => this.#change(data.notificationChanged)),
    );
    const known = this.#newestAt;
    try {
      if (this.tab !== "ALL") this.#come((await this.#page(1, "ALL")).edges[0]);
      await this.#read();
    } catch {
      return connection.renew();
    }
    connection.begun();
    const missed = this.items.filter((item) => known && item.at > known && !item.read);
    if (missed.length) this.arrived(missed);
    connection.follow<{ notificationAdded: Edge }>(ADDED, { after: this.newest }, (data) =>
      this.#inTurn(() => this.#add(data.notificationAdded)),
    );
    // An empty inbox has no cursor to go on from: what came while it was read is looked for once.
    if (!this.newest) setTimeout(() => this.retry(), EMPTY_AGAIN);
  }

  async show(tab: Tab): Promise<void> {
    this.tab = tab;
    this.items = [];
    this.isLoaded = false;
    this.#kept.clear();
    await this.retry();
  }

  /** Read what could not be read; of what is shown, what comes next. */
  async retry(): Promise<void> {
    const after = this.items.findLast((item) => item.cursor)?.cursor;
    const reading = this.#read(after);
    const turn = this.#turn;
    await reading.catch(() => {
      this.hasFailed = turn === this.#turn;
      this.changed();
    });
  }

  async more(): Promise<void> {
    const canRead = !this.isReading && !this.hasFailed;
    if (canRead && this.hasMore && this.items.length < MOST) await this.retry();
  }

  /** What is opened stays among the unread ones until the user goes elsewhere. */
  keep(id: string): void {
    this.#kept.add(id);
  }

  remove(id: string): void {
    this.items = this.items.filter((item) => item.id !== id);
    this.changed();
  }

  /** Show one in its place, if it belongs to what is shown. */
  put(item: Item): void {
    const { tab } = this;
    this.remove(item.id);
    const isOfTab =
      tab === "UNREAD"
        ? !item.read || this.#kept.has(item.id)
        : tab === "ALL" || tab === item.type;
    const place = this.items.findIndex(
      ({ at, id }) => at < item.at || (at === item.at && id < item.id),
    );
    const isShown = place >= 0 || !this.hasMore || !this.items.length;
    if (!isOfTab || !isShown || item.archived || item.snoozedUntil) return;
    this.items.splice(place < 0 ? this.items.length : place, 0, item);
    if (this.items.length <= MOST) return;
    this.items.pop();
    this.hasMore = true;
  }

  /** The first page, or the one after a cursor. Only what was asked for last is shown. */
  async #read(after?: string): Promise<void> {
    const { tab, items } = this;
    const turn = ++this.#turn;
    const shown = Math.min(LARGEST_PAGE, Math.max(PAGE_SIZE, items.length));
    this.isReading = true;
    this.hasFailed = false;
    this.changed();
    try {
      const { edges, pageInfo } = await this.#page(after ? PAGE_SIZE : shown, tab, after);
      if (tab === "ALL" && !after) this.#come(edges[0]);
      if (turn !== this.#turn) return;
      const before = after ? this.items : [];
      const read = edges.map((edge) => itemOf(edge.node, edge.cursor));
      this.items = [...before, ...read.filter(({ id }) => !before.some((item) => item.id === id))];
      this.hasMore = pageInfo.hasNextPage;
      this.isLoaded = true;
    } finally {
      if (turn === this.#turn) {
        this.isReading = false;
        for (const happen of this.#waiting.splice(0)) happen();
        this.changed();
      }
    }
  }

  async #page(first: number, tab: Tab, after?: string): Promise<Page["notifications"]> {
    const unreadOnly = tab === "UNREAD";
    const types = tab === "ALL" || unreadOnly ? null : [tab];
    const page = await this.#connection.ask<Page>(PAGE, { first, after, unreadOnly, types });
    return page.notifications;
  }

  #come(edge?: Edge): void {
    if (!edge) return;
    this.newest = edge.cursor;
    this.#newestAt = Math.max(this.#newestAt, Date.parse(edge.node.sentAt));
  }

  #add(edge: Edge): void {
    const item = itemOf(edge.node, edge.cursor);
    this.#come(edge);
    if (this.#shown(item.id)?.at === item.at) return;
    this.put(item);
    if (!item.read && !item.archived) this.arrived([item]);
  }

  /** What is revised, or wakes, notificationAdded tells, too: as new. */
  #change({ kind, notification }: Change): void {
    const { id } = notification;
    if (kind === "EXPIRED") this.remove(id);
    else if (!/REVISED|UNSNOOZED/.test(kind)) {
      this.put(itemOf(notification, this.#shown(id)?.cursor));
    }
  }

  #shown(id: string): Item | undefined {
    return this.items.find((item) => item.id === id);
  }

  #inTurn(happen: () => void): void {
    if (this.isReading) this.#waiting.push(happen);
    else happen();
  }
}

function itemOf(node: Notification, cursor: string | undefined): Item {
  return { ...node, cursor, at: Date.parse(node.sentAt), href: linkOf(node.content) };
}
