// What could not be handled: why, what it was, and what to do with it.

import { button, facts, h, written } from "./dom.js";
import { askBroker } from "./server.js";
import { confirmed, doing, empty, filled, note, whileVisible } from "./states.js";
import { counted, when } from "./words.js";

const FIRST = 50;
const QUERY = `{
  deadLetters(first: ${FIRST}) { id eventId type reason failedAt attempts body bodyBytes }
}`;
const COUNT = "{ operations(minutes: 1) { deadLetters } }";
const REPLAY = "mutation ($id: ID!) { replayDeadLetter(id: $id) }";
const DISCARD = "mutation ($id: ID!) { discardDeadLetter(id: $id) }";

export function deadLetters(place, signal) {
  const list = h("div", {});
  let count = null;

  /** RabbitMQ hands out all of them for each look: so that is done when there is news, or when not
   * all were seen that there are: some came meanwhile, or others had them in hand. */
  async function get() {
    const answer = askBroker(QUERY);
    const now = await answer.then(howMany, howMany).catch(() => null);
    count = now; // also when the list is refused, as it is of too many
    const { deadLetters: letters } = await answer;
    if (letters.length !== Math.min(now, FIRST)) count = null;
    return { letters, count: now };
  }

  const again = filled(list, signal, get, (seen) => listOf(seen, again));
  whileVisible(signal, async () => {
    const now = await howMany().catch(() => count);
    if (now !== count) again({ isTick: true });
  });
  place.append(
    h(
      "p",
      { class: "lead" },
      "Events that can’t be handled lie here with the reason, and hold up nothing behind them.",
    ),
    h(
      "div",
      { class: "actions" },
      button("Refresh", (event) => doing(event.target, again)),
    ),
    list,
  );
}

async function howMany() {
  return (await askBroker(COUNT)).operations.deadLetters;
}

export function listOf({ letters, count }, again) {
  if (!letters.length && count) {
    return empty(
      `There ${count === 1 ? "is" : "are"} ${counted(count, "dead letter")}.`,
      "Somebody else has them in hand just now: refresh in a moment.",
    );
  }
  if (!letters.length) {
    return empty(
      "All is well.",
      "There are no dead letters: everything that happened was handled.",
    );
  }
  const first =
    letters.length < count
      ? `${counted(count, "dead letter")}, and these are the oldest ${letters.length}:`
      : `${counted(letters.length, "dead letter")}, the oldest first.`;
  return [
    h("p", {}, first),
    h(
      "ul",
      { class: "cards" },
      letters.map((letter) => card(letter, again)),
    ),
  ];
}

function card(letter, again) {
  const name = letter.eventId ?? letter.id;

  async function replay() {
    await askBroker(REPLAY, { id: letter.id });
    note(`${name} is handled again. If it fails again, it comes back here.`);
    await again();
  }

  async function discard() {
    const details = ["It is thrown away, and nobody will ever get what it told of."];
    if (!(await confirmed(`Discard ${name}?`, details, "Discard it"))) return;
    await askBroker(DISCARD, { id: letter.id });
    note(`${name} is discarded.`);
    await again();
  }

  const act = (label, work) =>
    button(label, (event) => doing(event.target, work), {
      id: `${label}-${letter.id}`,
      "aria-label": `${label}: ${name}`,
    });
  return h(
    "li",
    { class: "card" },
    h("p", { class: "big" }, written(letter.reason)),
    facts([
      ["Event", letter.eventId && h("code", {}, written(letter.eventId))],
      ["Type", letter.type && h("code", {}, written(letter.type))],
      ["Given up", when(letter.failedAt)],
      ["Attempts", letter.attempts],
    ]),
    h(
      "details",
      { id: `says-${letter.id}` },
      h("summary", { id: `summary-${letter.id}` }, "What it says"),
      h("pre", { tabindex: 0, id: `body-${letter.id}` }, pretty(letter.body)),
      isCut(letter) && h("p", { class: "quiet" }, `The rest of ${size(letter)} is not shown.`),
    ),
    h("div", { class: "actions" }, act("Replay", replay), act("Discard", discard)),
  );
}

function isCut({ body, bodyBytes }) {
  return new TextEncoder().encode(body).length < bodyBytes;
}

function size({ bodyBytes }) {
  return counted(bodyBytes, "byte");
}

/** Long numbers stay as they were written. */
function pretty(body) {
  try {
    const kept = JSON.rawJSON && ((_, value, { source }) => exact(value, source));
    return JSON.stringify(JSON.parse(body, kept), null, 2);
  } catch {
    return body; // that it is no JSON may be what is wrong with it
  }
}

function exact(value, source) {
  return typeof value === "number" ? JSON.rawJSON(source) : value;
}
