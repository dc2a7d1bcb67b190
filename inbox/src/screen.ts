import { ARCHIVE, EXPLAIN, READ, READ_ALL, type Refusal, SEEN_ALL, type Step } from "./api.js";
import type { Connection } from "./connection.js";
import { Feed, type Item, type Tab } from "./feed.js";
import type { Labels, Words } from "./labels.js";
import { Choices } from "./preferences.js";
import type { Times } from "./time.js";

const LOOKED = 500; // ms that something is shown before it counts as seen

/** What is on the screen, and what the user does there. Knows nothing of elements. */
export class Screen {
  isOpen = false;
  settings = false;
  /** What was put away last, and may be taken back. */
  archived: Item | undefined;
  /** Of whom it is told why; the steps once they are known. */
  explained: string | undefined;
  steps: Step[] | undefined;
  problem = "";
  connection!: Connection;
  readonly feed: Feed;
  readonly choices = new Choices(this);
  #paintedUpTo: string | undefined;
  #seenUpTo: string | undefined;
  #looking: number | undefined;

  /** `changed`: paint it. `arrived`: say it. `restart`: begin anew. */
  constructor(
    public labels: Labels,
    readonly times: Times,
    readonly changed: () => void,
    arrived: (items: Item[]) => void,
    readonly restart: () => void,
  ) {
    this.feed = new Feed(changed, arrived);
  }

  /** Ask, and say so if that is refused. */
  async ask<T>(query: string, variables?: Record<string, unknown>): Promise<T | undefined> {
    try {
      this.problem = "";
      return await this.connection.ask<T>(query, variables);
    } catch (refusal) {
      const { message, extensions } = refusal as Refusal;
      this.problem = (this.labels as Words)[`${extensions?.code}`] ?? message;
      return undefined;
    } finally {
      this.changed();
    }
  }

  /** The user does not want to wait. */
  retry(): void {
    const { state } = this.connection;
    if (state === "signed-out") this.restart();
    else if (state === "away") this.connection.hasten();
    else void this.feed.retry();
  }

  show(tab: Tab): void {
    this.archived = undefined;
    void this.feed.show(tab);
  }

  showSettings(settings: boolean): void {
    this.settings = settings;
    this.problem = "";
    if (settings) void this.choices.read();
    this.changed();
  }

  read({ id, read, revision }: Item): void {
    this.feed.keep(id);
    if (!read) void this.ask(READ, { id, revision });
  }

  /** What was painted, and nothing that came since. */
  readAll(): void {
    void this.ask(READ_ALL, { upTo: this.#paintedUpTo });
  }

  async archive(item: Item): Promise<void> {
    this.feed.remove(item.id);
    const { id, revision } = item;
    if (await this.ask(ARCHIVE, { id, revision, archived: true })) this.archived = item;
    else this.feed.put(item);
  }

  undo(): void {
    const { id } = this.archived!;
    this.archived = undefined;
    void this.ask(ARCHIVE, { id, archived: false });
  }

  async explain(id: string): Promise<void> {
    this.steps = undefined;
    this.explained = this.explained === id ? undefined : id;
    this.changed();
    if (!this.explained) return;
    const answer = await this.ask<{ explain: { steps: Step[] } | null }>(EXPLAIN, { id });
    if (answer && this.explained === id) this.steps = answer.explain?.steps ?? [];
  }

  /** What is on the screen now has been looked at, if it stays there for a moment. */
  painted(): void {
    const newest = (this.#paintedUpTo = this.feed.newest);
    if (newest === this.#seenUpTo) return;
    this.#seenUpTo = newest;
    clearTimeout(this.#looking);
    this.#looking = setTimeout(() => void this.ask(SEEN_ALL, { upTo: newest }), LOOKED);
  }
}
