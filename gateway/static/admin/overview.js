// How it goes now, and how it went in the last hour.

import { figures } from "./figures.js";
import { h, table } from "./dom.js";
import { plots } from "./plots.js";
import { graphql } from "../shared/session.js";
import { BROKER_AWAY, ask } from "./server.js";
import { filled, whileVisible } from "./states.js";
import { ago, bytes, number } from "./words.js";

const QUERY = `{
  operations(minutes: 60) {
    at outbox outboxOldestAt sockets
    minutes { at events sent suppressed failed }
    processes { id service startedAt seenAt sockets memoryBytes }
  }
}`;
const DEPTHS = `{
  operations(minutes: 1) { deadLetters queues { name waiting retrying consumers } }
}`;

export function overview(place, signal) {
  const now = h("section", { "aria-label": "Now" });
  const hour = h("section", { "aria-label": "The last hour" });
  const details = h("section", { "aria-label": "Queues and processes" });
  const body = h("div", {});
  const redraw = plots(hour);
  place.append(body);

  function show(operations) {
    now.replaceChildren(figures(operations));
    redraw(operations.minutes);
    details.replaceChildren(...queues(operations), ...processes(operations));
    return [now, hour, details];
  }

  const again = filled(body, signal, get, show);
  whileVisible(signal, again);
}

/** The broker knows the depths: the rest is told while it is away, too. */
async function get() {
  const [{ operations }, depths] = await Promise.all([ask(QUERY), graphql(DEPTHS).catch(String)]);
  const known = depths.operations ?? { queues: null, deadLetters: null };
  return { ...operations, ...known };
}

function queues({ queues }) {
  const heading = h("h2", {}, "Queues");
  if (!queues) return [heading, h("p", { class: "bad" }, BROKER_AWAY)];
  const rows = queues.map(({ name, waiting, retrying, consumers }) => [
    name,
    number(waiting),
    number(retrying),
    consumers ? number(consumers) : h("strong", { class: "bad" }, "nobody"),
  ]);
  return [
    heading,
    table("Queues", ["Queue", "Waiting", "To be tried again", "Working on it"], rows),
  ];
}

function processes({ processes }) {
  const rows = processes.map((one) => [
    one.service,
    ago(one.startedAt),
    ago(one.seenAt),
    number(one.sockets),
    bytes(one.memoryBytes),
  ]);
  const heading = h("h2", {}, "Processes");
  if (!rows.length) return [heading, h("p", { class: "quiet" }, "None has reported yet.")];
  const headings = ["Service", "Started", "Last seen", "Sockets", "Memory"];
  return [heading, table("Processes", headings, rows)];
}
