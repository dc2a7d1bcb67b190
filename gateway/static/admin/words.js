// Numbers, times and the API's codes as people say them.

import { h } from "./dom.js";

const LANGUAGE = navigator.languages.find((tag) => tag.startsWith("en")) ?? "en-GB";
const SOON_MS = 5_000;
const UNITS = [
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
  ["second", 1_000],
];
const numbers = new Intl.NumberFormat(LANGUAGE);
const spans = new Intl.RelativeTimeFormat(LANGUAGE, { numeric: "always" });
const dates = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeStyle: "medium" });
const clocks = new Intl.DateTimeFormat(LANGUAGE, { hour: "2-digit", minute: "2-digit" });

export function number(value) {
  return numbers.format(value);
}

/** 1 customer, 2 customers. */
export function counted(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

export function bytes(count) {
  return `${number(Math.round(count / 2 ** 20))} MB`;
}

export function clock(instant) {
  return clocks.format(new Date(instant));
}

export function moment(instant) {
  return dates.format(new Date(instant));
}

export function relative(instant) {
  const away = Date.parse(instant) - Date.now();
  if (Math.abs(away) < SOON_MS) return away > 0 ? "in a moment" : "just now";
  const [unit, size] = UNITS.find(([, size]) => Math.abs(away) >= size);
  return spans.format(Math.round(away / size), unit);
}

/** How long ago, or until when, kept right by `keepTimesRight`. */
export function ago(instant) {
  return h("time", { datetime: instant, title: moment(instant), class: "ago" }, relative(instant));
}

/** How long ago, and when that was. */
export function when(instant) {
  return [ago(instant), h("span", { class: "quiet line" }, moment(instant))];
}

export function keepTimesRight() {
  setInterval(() => {
    for (const time of document.querySelectorAll("time.ago")) {
      time.textContent = relative(time.dateTime);
    }
  }, 1000);
}

const TYPES = {
  ORDER_UPDATE: "Order update",
  PROMOTION: "Promotion",
  RECOMMENDATION: "Recommendation",
};
const CHANNELS = { IN_APP: "In the app", EMAIL: "Email", WEB_PUSH: "Push", WEBHOOK: "Webhook" };
const OUTCOMES = {
  SENT: "Sent",
  HELD: "Waits",
  SUPPRESSED: "Not sent",
  DUPLICATE: "Was sent before",
  SUPERSEDED: "Overtaken",
};
const REASONS = {
  ACCEPTED: "It is wanted.",
  CRITICAL: "It is critical, and goes out whatever was chosen.",
  LOCKED_CHANNEL: "This channel can’t be switched off for it.",
  TYPE_OFF: "They switched this kind off.",
  CHANNEL_OFF: "They switched this channel off for it.",
  NO_CONSENT: "They never agreed to marketing on this channel.",
  QUIET_HOURS: "It fell into their quiet hours.",
  FREQUENCY_CAP: "They had enough advertising for now.",
  NEWER_STATE: "Something newer about the same thing was told already.",
  EXPIRED: "It was over by then.",
  TOO_FEW_CANDIDATES: "There were fewer than three products to recommend.",
  SAME_DEDUP_KEY: "It was asked for with the same key before.",
  SAME_EVENT: "The same event was handled before.",
};
const RULES = {
  EXPIRY: "Is it over?",
  COLLAPSE: "Is there something newer?",
  CRITICAL: "Is it critical?",
  LOCK: "May it be switched off?",
  TYPE: "Is this kind wanted?",
  CHANNEL: "Is this channel wanted?",
  CONSENT: "Did they agree to marketing?",
  QUIET_HOURS: "Is it quiet now?",
  FREQUENCY: "Had they enough?",
};
const STATES = {
  RUNNING: "Running",
  PAUSED: "Paused",
  CANCELLED: "Cancelled",
  DONE: "Done",
  READY: "To be sent",
  DIGESTED: "In a digest",
  FAILED: "Failed",
};

/** A code that is new to this page is shown as it is, in lower case. */
function named(names) {
  return (code) => names[code] ?? code.toLowerCase().replaceAll("_", " ");
}

export const typeName = named(TYPES);
export const channelName = named(CHANNELS);
export const outcomeName = named(OUTCOMES);
export const reasonWords = named(REASONS);
export const ruleName = named(RULES);
export const stateName = named({ ...OUTCOMES, ...STATES });
export const TYPE_CODES = Object.keys(TYPES);
export const CHANNEL_CODES = Object.keys(CHANNELS);
