// The figures of the moment, each with a word on what to do where it is bad.

import { h } from "./dom.js";
import { BROKER_AWAY } from "./server.js";
import { counted, number } from "./words.js";

const OLD_MS = 10_000; // the oldest row of an outbox that works is younger
const before = { outbox: null };

export function figures(operations) {
  const last = lastWhole(operations.minutes);
  return h(
    "ul",
    { class: "figures" },
    tile("Events a minute", last?.events, average(operations.minutes, "events")),
    tile("Notifications a minute", last?.sent, average(operations.minutes, "sent")),
    tile("Failures a minute", last?.failed, "In the last full minute.", failures(last)),
    tile("Outbox", operations.outbox, "Waits to be published.", outboxTrouble(operations)),
    tile("Queues", waiting(operations), "Wait to be handled.", queueTrouble(operations)),
    tile(
      "Dead letters",
      operations.deadLetters,
      "Nothing failed for good.",
      deadTrouble(operations),
    ),
    tile("Sockets", operations.sockets, "Screens that are told at once."),
    tile(
      "Processes",
      operations.processes.length,
      "Have reported lately.",
      !operations.processes.length && "None has reported lately: is a service running?",
    ),
  );
}

function tile(label, value, advice, trouble) {
  return h(
    "li",
    { class: trouble ? "figure card bad" : "figure card" },
    h("span", { class: "label" }, label),
    h("span", { class: "value" }, isKnown(value) ? number(value) : "–"),
    h("span", { class: trouble ? "hint" : "hint quiet" }, trouble || advice),
  );
}

function isKnown(value) {
  return value !== undefined && value !== null;
}

/** The one that is going on is not counted to its end. */
export function lastWhole(minutes) {
  return minutes.at(-2);
}

function average(minutes, name) {
  const whole = minutes.slice(0, -1);
  const sum = whole.reduce((total, minute) => total + minute[name], 0);
  const rounded = Math.round((sum / Math.max(1, whole.length)) * 10) / 10;
  return `In the last full minute; ${number(rounded)} on average in the hour.`;
}

function failures(last) {
  if (!last?.failed) return null;
  return "What fails is tried again, and is a dead letter when it fails for good. The log says why.";
}

function outboxTrouble({ at, outbox, outboxOldestAt }) {
  const grows = before.outbox !== null && before.outbox > 0 && outbox > before.outbox;
  before.outbox = outbox;
  const age = outboxOldestAt ? Date.parse(at) - Date.parse(outboxOldestAt) : 0;
  if (age > OLD_MS) {
    const waited = counted(Math.round(age / 1000), "second");
    return `The oldest has waited for ${waited}: is the broker there?`;
  }
  return grows && "It grows: more comes in than is published.";
}

function waiting({ queues }) {
  return queues?.reduce((total, queue) => total + queue.waiting, 0);
}

function queueTrouble({ queues }) {
  if (!queues) return BROKER_AWAY;
  const idle = queues.filter((queue) => !queue.consumers).map((queue) => queue.name);
  const names = idle.join(" and ");
  return idle.length > 0 && `Nobody works on ${names}: is the service running?`;
}

function deadTrouble({ deadLetters }) {
  if (deadLetters === null) return BROKER_AWAY;
  if (!deadLetters) return null;
  const link = h("a", { href: "#dead-letters", id: "look-at-them" }, "Look at them");
  return [link, ": replay them once the cause is mended, or discard them."];
}
