// A schedule's form: the errors that the server finds stand beside their fields.

import { ApiError, inWords } from "../shared/api.js";
import { h } from "./dom.js";
import { clear, field, placed } from "./forms.js";
import { ask } from "./server.js";
import { note } from "./states.js";
import { ago, moment } from "./words.js";

const PROMOTION = "promotion.announced";
const RECOMMENDATIONS = "recommendations.requested";
const OTHER = "other";
const SAVED = "{ name nextFireAt paused }";
const CREATE = `mutation ($input: ScheduleInput!) { saved: createSchedule(input: $input) ${SAVED} }`;
const UPDATE = `mutation ($id: ID!, $input: ScheduleInput!) {
  saved: updateSchedule(id: $id, input: $input) ${SAVED}
}`;
const TIMES = [
  ["0 9 * * *", "Every day at 9:00"],
  ["0 9 * * MON", "Every Monday at 9:00"],
  ["0 18 * * MON-FRI", "Monday to Friday at 18:00"],
  ["0 9 1 * *", "On the first of each month at 9:00"],
  ["0 * * * *", "Every hour"],
  ["*/15 * * * *", "Every 15 minutes"],
];

/** `schedule`: the one to change; null for a new one. */
export function scheduleForm(schedule) {
  const fields = fieldsOf(schedule);
  const event = eventFields(schedule?.event);
  const trouble = h("p", { class: "fault", role: "alert" });
  const submit = h("button", { class: "primary" }, schedule ? "Save" : "Make the schedule");

  async function save(happening) {
    happening.preventDefault();
    clear({ ...fields, ...event.fields });
    trouble.textContent = "";
    submit.disabled = true;
    try {
      await send(schedule, fields, event);
    } catch (error) {
      trouble.textContent = placed(error, { ...fields, ...event.places() }) ? "" : inWords(error);
    }
    submit.disabled = false;
  }

  return h(
    "form",
    { class: "card form", submit: save, novalidate: true },
    Object.values(fields).map((one) => one.row),
    schedule?.nextFireAt &&
      h(
        "p",
        { class: "quiet" },
        "As it is now, it fires next ",
        ago(schedule.nextFireAt),
        `, on ${moment(schedule.nextFireAt)}.`,
      ),
    event.row,
    trouble,
    h(
      "div",
      { class: "actions" },
      submit,
      h("a", { class: "button", href: "#schedules" }, "Go back"),
    ),
  );
}

async function send(schedule, fields, event) {
  const input = {
    name: fields.name.value,
    cron: fields.cron.value,
    timezone: fields.timezone.value,
    event: event.read(),
  };
  const { saved } = await ask(schedule ? UPDATE : CREATE, { id: schedule?.id, input });
  addEventListener("hashchange", () => note(afterwards(saved)), { once: true });
  location.hash = "schedules";
}

function afterwards({ name, nextFireAt, paused }) {
  if (paused) return `“${name}” is saved, and still paused.`;
  return `“${name}” is saved: it fires next on ${moment(nextFireAt)}.`;
}

function fieldsOf(schedule) {
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const fields = {
    name: field("Name", { value: schedule?.name, autocomplete: "off" }),
    cron: field("When", {
      value: schedule?.cron,
      autocomplete: "off",
      spellcheck: "false",
      advice:
        "Five fields: minute, hour, day, month, weekday. 30 9 * * MON is Mondays at 9:30. After saving you read when it fires next.",
    }),
    timezone: field("Time zone", {
      value: schedule?.timezone ?? here,
      autocomplete: "off",
      advice: "The clock that it goes by: Europe/Vienna, say.",
    }),
  };
  suggest(fields.cron, TIMES);
  suggest(
    fields.timezone,
    Intl.supportedValuesOf("timeZone").map((zone) => [zone]),
  );
  return fields;
}

function suggest({ input, row }, suggestions) {
  const id = `${input.id}-list`;
  const options = suggestions.map(([value, label]) => h("option", { value, label }));
  row.append(h("datalist", { id }, options));
  input.setAttribute("list", id);
}

/** What it publishes: a promotion's words, or nothing more to say, or JSON as it stands. */
function eventFields(event) {
  const kind = field("What happens", {
    value: kindOf(event),
    choices: [
      [PROMOTION, "A promotion, for everybody who wants promotions"],
      [RECOMMENDATIONS, "Recommendations, for everybody who wants them"],
      [OTHER, "Another event, as JSON"],
    ],
  });
  const words = event?.type === PROMOTION ? event.data : {};
  const title = field("Title", { value: words.title });
  const body = field("Text", { value: words.body, long: true, rows: 3 });
  const json = field("Event", {
    value: JSON.stringify(event ?? { type: "", data: {} }, null, 2),
    long: true,
    rows: 8,
    spellcheck: "false",
  });

  function choose() {
    title.row.hidden = body.row.hidden = kind.value !== PROMOTION;
    json.row.hidden = kind.value !== OTHER;
  }

  kind.input.addEventListener("change", choose);
  choose();

  return {
    row: [kind.row, title.row, body.row, json.row],
    fields: { kind, title, body, json },
    places() {
      if (kind.value !== PROMOTION) return { event: kind.value === OTHER ? json : kind };
      return { "event.data.title": title, "event.data.body": body, event: kind };
    },
    read() {
      if (kind.value === RECOMMENDATIONS) return { type: RECOMMENDATIONS, data: {} };
      if (kind.value === PROMOTION) {
        return { type: PROMOTION, data: { title: title.value, body: body.value } };
      }
      return parsed(json.value);
    },
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    const advice = `This is no JSON yet: ${error.message}.`;
    throw new ApiError(advice, { field: "input.event" });
  }
}

function kindOf(event) {
  if (!event) return PROMOTION;
  const keys = Object.keys(event.data ?? {}).join();
  if (event.type === PROMOTION && keys === "title,body") return PROMOTION;
  return event.type === RECOMMENDATIONS && !keys ? RECOMMENDATIONS : OTHER;
}
