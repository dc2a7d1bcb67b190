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
  #begins = 0;
  #waiting: (() => void)[] = [];

  /** `changed`: there is something else to show. `arrived`: and this is what is new. */
  constructor(
    readonly changed: () => void,
    readonly arrived: (items: Item[]) => void,
  ) {}

  /** Begin anew with what is stored, on a connection that has just been made. */
  async begin(connection: Connection): Promise<void> {
    const begins = ++this.#begins;
    this.#connection = connection;
    this.#waiting = [];
    connection.follow<{ unreadCount: number }>(UNREAD, {}, ({ unreadCount }) => {
      this.unread = unreadCount;
      this.changed();
      this.#inTurn(() => void this.#findFirst());
    });
    connection.follow<{ notificationChanged: Change }>(CHANGED, {}, (data) =>
      this.#inTurn(() => this.#change(data.notificationChanged)),
    );
    const { isLoaded } = this;
    const known = this.#newestAt;
    try {
      if (this.tab !== "ALL") this.#come((await this.#page(1, "ALL")).edges[0]);
      // What was asked on a connection that was lost is answered on the next, which has begun, too.
      if (begins !== this.#begins) return;
      await this.#read();
      if (begins !== this.#begins) return;
    } catch {
      if (begins === this.#begins) connection.renew();
      return;
    }
    connection.begun();
    if (isLoaded) this.arrived(this.items.filter((item) => item.at > known && !item.read));
    connection.follow<{ notificationAdded: Edge }>(ADDED, { after: this.newest }, (data) =>
      this.#inTurn(() => this.#add(data.notificationAdded)),
    );
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
    await this.#attempt(this.items.findLast((item) => item.cursor)?.cursor);
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
    const stays = this.#shown(item.id)?.at === item.at;
    this.remove(item.id);
    const isOfTab =
      tab === "UNREAD"
        ? !item.read || this.#kept.has(item.id)
        : tab === "ALL" || tab === item.type;
    const place = this.items.findIndex(
      ({ at, id }) => at < item.at || (at === item.at && id < item.id),
    );
    const isShown = stays || place >= 0 || !this.hasMore || !this.items.length;
    if (!isOfTab || !isShown || item.archived || item.snoozedUntil) return;
    this.items.splice(place < 0 ? this.items.length : place, 0, item);
    if (this.items.length <= MOST) return;
    this.items.pop();
    this.hasMore = true;
  }

  async #attempt(after?: string): Promise<void> {
    const reading = this.#read(after);
    const turn = this.#turn;
    await reading.catch(() => {
      this.hasFailed = turn === this.#turn;
      this.changed();
    });
  }

  /** The first pages, as far as they were shown, or the one after a cursor. Only what was asked
   * for last is shown. */
  async #read(after?: string): Promise<void> {
    const { tab, items } = this;
    const turn = ++this.#turn;
    const wanted = after ? PAGE_SIZE : Math.max(PAGE_SIZE, items.length);
    this.isReading = true;
    this.hasFailed = false;
    this.changed();
    try {
      const found: Edge[] = [];
      do {
        const first = Math.min(LARGEST_PAGE, wanted - found.length);
        const { edges, pageInfo } = await this.#page(first, tab, found.at(-1)?.cursor ?? after);
        if (tab === "ALL" && !after && !found.length) this.#come(edges[0]);
        if (turn !== this.#turn) return;
        found.push(...edges);
        this.hasMore = pageInfo.hasNextPage;
      } while (this.hasMore && found.length < wanted);
      const before = after ? this.items : [];
      const read = found.map((edge) => itemOf(edge.node, edge.cursor));
      this.items = [...before, ...read.filter(({ id }) => !before.some((item) => item.id === id))];
      this.isLoaded = true;
    } finally {
      if (turn === this.#turn) {
        this.isReading = false;
        for (const happen of this.#waiting.splice(0)) happen();
        this.changed();
      }
    }
  }

  /** An inbox that was empty when it was read has no cursor to go on from: if what came since is
   * not told, it is read again, once for all that waited for their turn. */
  async #findFirst(): Promise<void> {
    if (!this.unread || this.newest || this.isReading) return;
    await this.retry();
    this.arrived(this.items.filter((item) => !item.read));
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

  /** What is revised notificationAdded tells, too: as new. What is taken back is read anew. */
  #change({ kind, notification }: Change): void {
    const { id, sentAt, read, archived, snoozedUntil } = notification;
    const shown = this.#shown(id);
    const last = this.hasMore && this.items.at(-1);
    if (kind === "EXPIRED") this.remove(id);
    else if (shown && kind !== "REVISED") this.put({ ...shown, read, archived, snoozedUntil });
    else if (
      kind.startsWith("UN") &&
      !(shown || archived || snoozedUntil || this.isReading) &&
      !(last && Date.parse(sentAt) < last.at)
    ) {
      void this.#attempt();
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
