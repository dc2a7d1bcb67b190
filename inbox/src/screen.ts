import { ARCHIVE, EXPLAIN, READ, READ_ALL, type Refusal, type Step } from "./api.js";
import type { Connection } from "./connection.js";
import { Feed, type Item, type Tab } from "./feed.js";
import type { Labels, Words } from "./labels.js";
import { Choices } from "./preferences.js";
import type { Times } from "./time.js";

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
  readonly feed: Feed;
  readonly choices = new Choices(this);
  #paintedUpTo: string | undefined;

  /** `changed`: paint it. `arrived`: say it. `restart`: begin anew. */
  constructor(
    readonly connection: Connection,
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
    if (this.explained !== id) return;
    if (answer) this.steps = answer.explain?.steps ?? [];
    else this.explained = undefined;
  }

  /** What is on the screen now is what "all" means. */
  painted(): void {
    this.#paintedUpTo = this.feed.newest;
  }
}
