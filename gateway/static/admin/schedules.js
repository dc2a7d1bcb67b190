// Schedules: what fires next and fired last; paused, run now, deleted, or led to their form.

import { button, h, table, written } from "./dom.js";
import { scheduleForm } from "./schedule_form.js";
import { ask } from "./server.js";
import { confirmed, doing, empty, filled, note, whileVisible } from "./states.js";
import { moment, when } from "./words.js";

const QUERY = `{
  schedules { id name cron timezone event paused nextFireAt lastFiredAt }
}`;
const PAUSE = `mutation ($id: ID!, $paused: Boolean!) {
  pauseSchedule(id: $id, paused: $paused) { name nextFireAt }
}`;
const RUN = "mutation ($id: ID!) { runSchedule(id: $id) { eventId } }";
const DELETE = "mutation ($id: ID!) { deleteSchedule(id: $id) }";
const LATE_MS = 60_000; // a scheduler that works fires within seconds
const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function schedules(place, signal) {
  const list = h("div", {});
  place.append(
    h(
      "p",
      { class: "lead" },
      `Each publishes an event whenever its time has come. Times are those of your clock (${HERE}).`,
    ),
    h("p", {}, h("a", { class: "button primary", href: "#schedules/new" }, "New schedule")),
    list,
  );
  const again = filled(
    list,
    signal,
    got,
    (schedules) => listOf(schedules, again),
  );
  whileVisible(signal, again);
}

async function got() {
  const { schedules } = await ask(QUERY);
  const isLate = ({ nextFireAt }) => nextFireAt && Date.now() - Date.parse(nextFireAt) > LATE_MS;
  return schedules.map((one) => ({ ...one, isLate: isLate(one) }));
}

function listOf(schedules, again) {
  if (!schedules.length) {
    return empty("There is no schedule yet.", "Make one for what shall happen again and again.");
  }
  const rows = schedules.map((schedule) => [
    [written(schedule.name), h("span", { class: "quiet line" }, schedule.event.type)],
    [h("code", {}, schedule.cron), h("span", { class: "quiet line" }, schedule.timezone)],
    next(schedule),
    schedule.lastFiredAt ? when(schedule.lastFiredAt) : h("span", { class: "quiet" }, "Never"),
    actions(schedule, again),
  ]);
  const headings = ["Schedule", "When", "Fires next", "Fired last", "Do"];
  return table("Schedules", headings, rows);
}

function next({ nextFireAt, isLate }) {
  if (!nextFireAt) return h("span", { class: "badge" }, "Paused");
  const trouble = "It is late: is a scheduler running?";
  return [when(nextFireAt), isLate && h("strong", { class: "bad line" }, trouble)];
}

function actions({ id, name, paused }, again) {
  async function pause() {
    const { pauseSchedule } = await ask(PAUSE, { id, paused: !paused });
    const next = pauseSchedule.nextFireAt;
    note(next ? `“${name}” goes on: it fires next on ${moment(next)}.` : `“${name}” is paused.`);
    await again();
  }

  async function run() {
    await ask(RUN, { id });
    note(`“${name}” was run now, beside its times.`);
    await again();
  }

  async function remove() {
    const question = `Delete “${name}”?`;
    if (
      !(await confirmed(question, "It never fires again. What it published stays.", "Delete it"))
    ) {
      return;
    }
    await ask(DELETE, { id });
    note(`“${name}” is deleted.`);
    await again();
  }

  const act = (verb, label, work) =>
    button(label, (event) => doing(event.target, work), {
      id: `${verb}-${id}`,
      "aria-label": `${label}: ${name}`,
    });
  return h(
    "div",
    { class: "actions" },
    act("pause", paused ? "Go on" : "Pause", pause),
    act("run", "Run now", run),
    h(
      "a",
      {
        class: "button",
        href: `#schedules/${id}`,
        id: `edit-${id}`,
        "aria-label": `Edit: ${name}`,
      },
      "Edit",
    ),
    act("delete", "Delete", remove),
  );
}

/** The form, for `new` or for the schedule of an id. */
export function editSchedule(place, signal, id, titled) {
  titled(id === "new" ? "New schedule" : "Edit a schedule");
  if (id === "new") {
    place.append(scheduleForm(null));
    return;
  }
  const body = h("div", {});
  place.append(body);
  filled(
    body,
    signal,
    () => ask(QUERY),
    ({ schedules }) => {
      const found = schedules.find((schedule) => schedule.id === id);
      const gone = () =>
        empty("There is no such schedule.", h("a", { href: "#schedules" }, "All schedules"));
      return found ? scheduleForm(found) : gone();
    },
  );
}
