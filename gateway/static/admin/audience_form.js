// The conditions of an audience, in the words of who sells things.

import { ApiError } from "../shared/api.js";
import { h } from "./dom.js";
import { field, legible, listed, tick } from "./forms.js";
import { CHANNEL_CODES, TYPE_CODES, channelName, typeName } from "./words.js";

const ANYTHING = "Any; or categories, with commas between them.";

/** `row`s, the `fields` by the API's names, and `read()`: the AudienceInput. It
 * throws where one can't be read: without it, more people would fit. */
export function audienceForm() {
  const fields = {
    locales: field("Languages", { advice: "de, fr: one of these. de stands for de-AT, too." }),
    tags: field("Tags", { advice: "vip, newsletter: they have one of these." }),
    "bought.withinDays": days("Bought within the last … days"),
    "bought.categories": field("… of which categories", { advice: ANYTHING }),
    "viewed.withinDays": days("Looked at products within the last … days"),
    "viewed.categories": field("… of which categories", { advice: ANYTHING }),
    inactiveDays: days("Did nothing in the shop for … days"),
    timezones: field("Time zones", { advice: "Europe/Vienna, Europe/Berlin: one of these." }),
    createdFrom: field("Registered since", { type: "datetime-local" }),
    createdBefore: field("Registered before", { type: "datetime-local" }),
    "accepts.type": field("Want to hear of", {
      choices: [
        ["", "Whatever they want"],
        ...TYPE_CODES.map((code) => [code, `${typeName(code)}s`]),
      ],
    }),
    "accepts.channel": field("… on", {
      choices: [
        ["", "Whichever channel"],
        ...CHANNEL_CODES.map((code) => [code, channelName(code)]),
      ],
    }),
  };
  const neverBought = tick("Never bought anything");
  return {
    fields,
    row: h(
      "fieldset",
      {},
      h("legend", {}, "Who gets it"),
      h(
        "p",
        { class: "quiet" },
        "Everybody for whom all holds that you fill in. Fill in nothing for everybody.",
      ),
      h("div", { class: "grid" }, rows(fields, ["locales", "tags"])),
      h("div", { class: "grid" }, rows(fields, ["bought.withinDays", "bought.categories"])),
      neverBought.row,
      h(
        "details",
        {},
        h("summary", {}, "More conditions"),
        h(
          "div",
          { class: "grid" },
          rows(fields, [
            "viewed.withinDays",
            "viewed.categories",
            "inactiveDays",
            "timezones",
            "createdFrom",
            "createdBefore",
            "accepts.type",
            "accepts.channel",
          ]),
        ),
      ),
    ),
    read: () => read(fields, neverBought.input.checked),
  };
}

function days(label) {
  return field(label, { type: "number", min: 1, max: 3650, inputmode: "numeric" });
}

function rows(fields, names) {
  return names.map((name) => fields[name].row);
}

function read(fields, neverBought) {
  const value = (name) => fields[name].value.trim();
  legible(fields);
  if (value("accepts.channel") && !value("accepts.type")) {
    throw new ApiError("Choose what they want to hear of there.", { field: "input.accepts.type" });
  }
  const given = {
    locales: listed(value("locales")),
    timezones: listed(value("timezones")),
    tags: listed(value("tags")),
    createdFrom: instant(value("createdFrom")),
    createdBefore: instant(value("createdBefore")),
    accepts: value("accepts.type") && {
      type: value("accepts.type"),
      channel: value("accepts.channel") || null,
    },
    bought: deeds(value("bought.withinDays"), listed(value("bought.categories"))),
    viewed: deeds(value("viewed.withinDays"), listed(value("viewed.categories"))),
    neverBought,
    inactiveDays: value("inactiveDays") && Number(value("inactiveDays")),
  };
  return Object.fromEntries(Object.entries(given).filter(([, one]) => one && one.length !== 0));
}

/** Categories alone mean: at any time. */
function deeds(withinDays, categories) {
  if (!withinDays && !categories.length) return null;
  const all = 3650;
  return {
    withinDays: withinDays ? Number(withinDays) : all,
    ...(categories.length && { categories }),
  };
}

function instant(local) {
  return local && new Date(local).toISOString();
}
