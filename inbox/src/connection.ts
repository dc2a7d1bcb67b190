import { type Client, createClient } from "graphql-ws/client";
import type { Refusal } from "./api.js";

const UNAUTHORIZED = 4401;
const FORBIDDEN = 4403; // a token that is not valid, or has just run out
const BEAT = 10_000; // ms between two pings, and what a pong may take
const QUICK_BEAT = 3_000; // the same once the network has come back
const SHORT_WAIT = 500; // ms before the first attempt to come back
const LONG_WAIT = 30_000;
const SPREAD = 3_000; // ms in which those come back who all lost a gateway at once
const PATIENCE = 4_000; // ms until a loss is told: most are over by then
const OPENING = 15_000; // ms that a token, or a connection, may take

export type State = "connecting" | "open" | "away" | "signed-out";
export type GetToken = () => string | null | undefined | Promise<string | null | undefined>;

type Variables = Record<string, unknown>;

/** None of both: the connection is lost. */
interface Answer<T> {
  data?: T;
  refusal?: Refusal | undefined;
}

/** One websocket at a time, for everything, and a new one for as long as there is a token.
 *
 * Each is a client of its own: whatever was followed on one that was lost is followed anew, from
 * `connected`; what was asked on it is asked again. All verbs of the inbox may be repeated. */
export class Connection {
  state: State = "connecting";
  #client!: Promise<Client>;
  #found!: (client: Client) => void;
  #current: Client | undefined;
  #over = false;
  #isAccepted = false;
  #hasBegun = false;
  #hastened = -OPENING;
  #late: number | undefined;
  #wake = () => {};
  #beat = () => {};
  #end = () => {};

  /** `changed`: the state is another. `connected`: to begin what is to be followed. */
  constructor(
    readonly endpoint: string,
    readonly getToken: GetToken,
    readonly changed: () => void,
    readonly connected: () => void,
  ) {
    this.#lose();
    void this.#keepConnected();
  }

  /** Raises a Refusal. While there is no connection it waits for the next one. */
  async ask<T>(query: string, variables: Variables = {}): Promise<T> {
    for (;;) {
      const client = await this.#client;
      const answer = await new Promise<Answer<T>>((resolve) =>
        subscribe<T>(client, query, variables, resolve, resolve),
      );
      if (answer.data) return answer.data;
      const { refusal } = answer;
      const isOver = refusal?.extensions?.code === "UNAUTHENTICATED" || !refusal;
      if (isOver && client === this.#current) this.renew();
      if (refusal) throw refusal;
    }
  }

  /** Until this connection ends; if the server ends it before, so does the connection, and the
   * next one begins with what is stored then. */
  follow<T>(query: string, variables: Variables, next: (data: T) => void): void {
    const client = this.#current;
    const end = () => client === this.#current && this.renew();
    if (client) subscribe<T>(client, query, variables, ({ data }) => (data ? next(data) : end()), end);
  }

  /** Begin anew, after a while: longer each time, or what is refused would be asked for at once. */
  renew(): void {
    this.#hasBegun = false;
    this.#end();
  }

  /** What is stored has been read. */
  begun(): void {
    clearTimeout(this.#late);
    this.#late = undefined;
    this.#hasBegun = true;
    this.#be("open");
  }

  /** The network or the user is back: try now, or look whether the socket still lives. */
  hasten(): void {
    this.#hastened = performance.now();
    this.#wake();
    this.#beat();
    setTimeout(() => this.#beat(), QUICK_BEAT);
  }

  close(): void {
    this.#over = true;
    clearTimeout(this.#late);
    this.#end();
    this.#wake();
  }

  async #keepConnected(): Promise<void> {
    let attempts = 0;
    let refused = 0;
    while (refused < 2) {
      let code = 0;
      this.#isAccepted = this.#hasBegun = false;
      try {
        const token = await Promise.race([this.getToken(), tooLate()]);
        if (this.#over || !token) break;
        code = await this.#live(token);
      } catch {
        // Who renews the token may be offline, too.
      }
      if (this.#over) return;
      if (code === UNAUTHORIZED) break;
      const isForbidden = code === FORBIDDEN;
      if (this.#isAccepted) refused = 0;
      else if (isForbidden) refused += 1;
      attempts = this.#hasBegun ? 0 : attempts + 1;
      if (attempts || !isForbidden) await this.#pause(attempts);
    }
    clearTimeout(this.#late);
    this.#be("signed-out");
  }

  /** One connection, until it ends; the code of its end. */
  #live(token: string): Promise<number> {
    return new Promise((resolve) => {
      let heard = 0;
      let pinged = 0;
      let beating: number | undefined;
      const end = (event: unknown) => {
        clearTimeout(opening);
        clearInterval(beating);
        this.#beat = this.#end = () => {};
        if (this.#current) this.#lose();
        Promise.resolve(client.dispose()).catch(() => {}); // as it was never open
        resolve((event as CloseEvent).code);
      };
      const client = createClient({
        url: new URL(this.endpoint, document.baseURI).href.replace(/^http/, "ws"),
        connectionParams: { authorization: `Bearer ${token}` },
        retryAttempts: 0,
        lazy: false,
        onNonLazyError: () => {},
        on: {
          message: () => {
            heard = performance.now();
          },
          connected: (socket) => {
            clearTimeout(opening);
            this.#beat = () => {
              const now = performance.now();
              if (pinged <= heard) {
                pinged = now;
                (socket as WebSocket).send('{"type":"ping"}');
              } else if (now - pinged >= QUICK_BEAT) client.terminate();
            };
            beating = setInterval(this.#beat, BEAT);
            this.#isAccepted = true;
            this.#current = client;
            this.#found(client);
            this.connected();
          },
          error: () => client.terminate(), // which closes
          closed: end,
        },
      });
      const opening = setTimeout(() => client.terminate(), OPENING);
      this.#end = () => client.terminate();
    });
  }

  #lose(): void {
    this.#late ??= setTimeout(() => this.#be("away"), PATIENCE);
    this.#current = undefined;
    this.#client = new Promise((resolve) => {
      this.#found = resolve;
    });
  }

  /** Longer after each attempt, or until it is hastened. */
  async #pause(attempts: number): Promise<void> {
    const isAwaited = performance.now() - this.#hastened < 2 * QUICK_BEAT;
    const first = isAwaited ? 0 : SPREAD * Math.random();
    const later = Math.min(LONG_WAIT, SHORT_WAIT * 2 ** attempts) * (0.5 + Math.random() / 2);
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, attempts ? later : first);
    });
  }

  #be(state: State): void {
    if (this.#over || state === this.state) return;
    this.state = state;
    this.changed();
  }
}

const tooLate = () => new Promise<never>((_, reject) => setTimeout(reject, OPENING));

/** Every result is told as the next one, and what ends it as the last. */
function subscribe<T>(
  client: Client,
  query: string,
  variables: Variables,
  next: (answer: Answer<T>) => void,
  last: (answer: Answer<T>) => void,
): void {
  client.subscribe<T>(
    { query, variables },
    {
      next: ({ data, errors }) => next(errors ? { refusal: errors[0] } : { data: data! }),
      error: (problem) => last({ refusal: (problem as Refusal[])[0] }),
      complete: () => last({}),
    },
  );
}
