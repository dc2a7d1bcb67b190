// Broadcasts: how far each has come, and how to steer it.

import { audienceWords } from "./audience_words.js";
import { broadcastForm } from "./broadcast_form.js";
import { button, h, svg, written } from "./dom.js";
import { pages } from "./pages.js";
import { ask } from "./server.js";
import { confirmed, doing, empty, inPlace, note, whileVisible } from "./states.js";
import { ago, counted, moment, number, stateName } from "./words.js";

const FIELDS = `id title body audience state startedAt perSecond expiresAt
  total sent held suppressed failed`;
const QUERY = `query ($after: String) {
  page: broadcasts(first: 10, after: $after) {
    edges { node { ${FIELDS} } }
    pageInfo { hasNextPage endCursor }
  }
}`;
const OFTEN_MS = 1_500; // while one is on its way
const SELDOM_MS = 5_000;
const PARTS = [
  ["sent", "sent"],
  ["held", "wait"],
  ["suppressed", "did not want it"],
  ["failed", "failed"],
];

export function broadcasts(place, signal) {
  const list = h("div", {});
  const all = h("ul", { class: "cards" });
  const cards = new Map();
  let isAnyRunning = false;
  place.append(
    h("p", { class: "lead" }, "One message to everybody who fits, once to each."),
    h("p", {}, h("a", { href: "#broadcasts/new", class: "button primary" }, "New broadcast")),
    list,
  );

  function show(nodes) {
    isAnyRunning = nodes.some(({ state }) => state === "RUNNING");
    if (!nodes.length)
      return empty(
        "There is no broadcast yet.",
        "What you send is listed here, with how far it has come.",
      );
    inPlace(all, () => nodes.map(cardOf));
    return all;
  }

  function cardOf(broadcast) {
    const { id } = broadcast;
    if (!cards.has(id)) cards.set(id, card(broadcast, () => again()));
    cards.get(id).draw(broadcast);
    return cards.get(id).place;
  }

  const get = async (after) => (await ask(QUERY, { after })).page;
  const again = pages(list, signal, get, show);
  whileVisible(signal, again, () => (isAnyRunning ? OFTEN_MS : SELDOM_MS));
}

function card(broadcast, again) {
  const state = h("span", {});
  const bar = h("div", {});
  const actions = h("div", { class: "actions" });
  let latest = {};

  /** Buttons stay while they mean the same: somebody may be about to press one. */
  function draw(now) {
    const changed = now.state !== latest.state;
    latest = now;
    bar.replaceChildren(...progress(now));
    if (!changed) return;
    state.className = `badge ${now.state.toLowerCase()}`;
    state.textContent = stateName(now.state);
    inPlace(actions, () => (isOpen(now) ? steering(() => latest, again) : []));
  }

  return { draw, place: h("li", { class: "card" }, about(broadcast, state), bar, actions) };
}

function isOpen({ state }) {
  return state === "RUNNING" || state === "PAUSED";
}

function about({ title, body, audience, perSecond, startedAt, expiresAt }, state) {
  return [
    h("div", { class: "titled" }, h("h2", {}, written(title)), state),
    h("p", { class: "said" }, written(body)),
    h(
      "p",
      { class: "quiet" },
      "To ",
      written(audienceWords(audience)),
      perSecond && `, ${number(perSecond)} a second at most`,
    ),
    h(
      "p",
      { class: "quiet" },
      "Started ",
      ago(startedAt),
      `, on ${moment(startedAt)}`,
      expiresAt && `; over on ${moment(expiresAt)}`,
    ),
  ];
}

function progress(one) {
  const done = PARTS.reduce((sum, [name]) => sum + one[name], 0);
  const said = PARTS.filter(([name]) => name === "sent" || one[name]).map(
    ([name, words]) => `${number(one[name])} ${words}`,
  );
  const of = one.total === null ? waitingWords(one) : `of ${counted(one.total, "recipient")}`;
  let x = 0;
  const bars = PARTS.map(([name]) => {
    const width = one.total ? (one[name] / one.total) * 100 : 0;
    x += width;
    return svg("rect", { class: name, x: x - width, width, height: 1 });
  });
  const attributes = {
    viewBox: "0 0 100 1",
    preserveAspectRatio: "none",
    class: "progress",
    role: "progressbar",
    "aria-label": `Progress of ${one.title}`,
    "aria-valuemin": 0,
    "aria-valuemax": one.total ?? 1,
    "aria-valuenow": one.total === null ? null : done,
    "aria-valuetext": `${said.join(", ")} ${of}`,
  };
  return [svg("svg", attributes, bars), h("p", { class: "counts" }, `${said.join(", ")} ${of}`)];
}

function waitingWords({ state }) {
  return state === "CANCELLED" ? "before it was cancelled" : "so far; recipients are being found";
}

const STEER = (verb) => `mutation ($id: ID!) { now: ${verb}Broadcast(id: $id) { state } }`;

/** `latest()`: how the broadcast stands now. */
function steering(latest, again) {
  const { id, title, state } = latest();

  async function steer(verb, done) {
    const { now } = await ask(STEER(verb), { id });
    note(now.state === "DONE" ? `“${title}” was done before.` : `“${title}” ${done}.`);
    await again();
  }

  async function cancel() {
    const { total, sent } = latest();
    const left = total === null ? "" : ` ${number(total - sent)} would not get it.`;
    const details = `What went out stays out.${left} It can’t be taken up again.`;
    if (await confirmed(`Cancel “${title}”?`, details, "Cancel the broadcast")) {
      await steer("cancel", "is cancelled");
    }
  }

  const act = (verb, label, work) =>
    button(label, (event) => doing(event.target, work), {
      id: `${verb}-${id}`,
      "aria-label": `${label}: ${title}`,
    });
  return [
    state === "RUNNING"
      ? act("steer", "Pause", () => steer("pause", "is paused"))
      : act("steer", "Go on", () => steer("resume", "goes on")),
    act("cancel", "Cancel", cancel),
  ];
}

export function newBroadcast(place, signal, _, titled) {
  titled("New broadcast");
  place.append(broadcastForm(signal));
}
