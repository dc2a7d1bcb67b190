// An audience, as a person would say it.

import { channelName, counted, moment, typeName } from "./words.js";

/** `conditions`: as the API answers them, enums in lower case. */
export function audienceWords(conditions) {
  const said = Object.entries(conditions ?? {})
    .filter(([name, value]) => isSet(value) && SAYINGS[camel(name)])
    .map(([name, value]) => SAYINGS[camel(name)](value));
  return said.length ? `those who ${joined(said)}` : "everybody";
}

const SAYINGS = {
  locales: (tags) => `read ${tags.join(" or ")}`,
  timezones: (zones) => `live in ${zones.join(" or ")}`,
  tags: (tags) => `are tagged ${tags.join(" or ")}`,
  createdFrom: (instant) => `registered since ${moment(instant)}`,
  createdBefore: (instant) => `registered before ${moment(instant)}`,
  accepts: ({ type, channel }) =>
    `want ${typeName(upper(type)).toLowerCase()}s${channel ? ` (${channelName(upper(channel)).toLowerCase()})` : ""}`,
  bought: (deeds) => `bought ${withWhat(deeds)}`,
  viewed: (deeds) => `looked at ${withWhat(deeds)}`,
  neverBought: () => "never bought anything",
  inactiveDays: (days) => `did nothing for ${counted(days, "day")}`,
};

function withWhat(deeds) {
  const days = deeds.withinDays ?? deeds.within_days;
  const what = deeds.categories?.length ? deeds.categories.join(" or ") : "something";
  return `${what} in the last ${counted(days, "day")}`;
}

function isSet(value) {
  return value !== null && value !== false && !(Array.isArray(value) && !value.length);
}

function camel(name) {
  return name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
}

function upper(code) {
  return code.toUpperCase();
}

function joined(parts) {
  return parts.length < 2 ? parts.join() : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
