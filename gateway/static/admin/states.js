// What a pane shows when there is nothing to show yet, nothing at all, or something went wrong.

import { inWords } from "../shared/api.js";
import { button, h } from "./dom.js";
import { isAway } from "./server.js";

const EVERY_MS = 5_000;

export function loading() {
  return h("p", { class: "state", role: "status" }, "Loading …");
}

export function empty(title, advice) {
  return h("div", { class: "state" }, h("p", { class: "big" }, title), h("p", {}, advice));
}

export function problem(error, retry) {
  const again = isAway(error) && "This page tries again by itself.";
  return h(
    "div",
    { class: "state bad", role: "alert" },
    h("p", { class: "big" }, "That did not work."),
    h("p", {}, inWords(error)),
    again && h("p", {}, again),
    button("Try again", retry),
  );
}

/** Shows what `get` answers, and before that that it is on its way. What was shown before stays
 * while it is got anew, and for good if nothing has changed. Answers how to do that again. */
export function filled(place, signal, get, show) {
  let latest = 0;
  let shown = null;

  async function run() {
    const mine = ++latest;
    const counts = () => mine === latest && !signal.aborted;
    if (!place.hasChildNodes()) place.replaceChildren(loading());
    try {
      const answer = await get();
      const said = JSON.stringify(answer);
      if (!counts() || said === shown) return;
      inPlace(place, () => show(answer));
      shown = said;
    } catch (error) {
      if (!counts() || keepsWhatIsThere(place, error)) return;
      place.replaceChildren(problem(error, run));
      shown = null;
    }
  }

  run();
  return run;
}

/** Nobody looks at a hidden page; when it is shown again, it is brought up to date at once. */
export function whileVisible(signal, run) {
  const timer = setInterval(() => document.hidden || run(), EVERY_MS);
  document.addEventListener("visibilitychange", () => document.hidden || run(), { signal });
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** While the server is away a banner says so, and what was shown last is better than nothing. */
function keepsWhatIsThere(place, error) {
  return isAway(error) && !place.querySelector(":scope > .state");
}

/** Puts what `show` makes into the place: the focus, and what was scrolled or opened, stay. */
export function inPlace(place, show) {
  const focused = place.contains(document.activeElement) && document.activeElement.id;
  const scrolled = new Map(
    [...place.querySelectorAll(".scrolls")].map((one) => [one.ariaLabel, one.scrollLeft]),
  );
  const open = [...place.querySelectorAll("details[open][id]")].map(({ id }) => id);
  const nodes = [show()].flat(Infinity);
  const isThere = nodes.length === place.childNodes.length;
  if (!isThere || nodes.some((node, index) => node !== place.childNodes[index])) {
    place.replaceChildren(...nodes);
  }
  for (const one of place.querySelectorAll(".scrolls")) {
    one.scrollLeft = scrolled.get(one.ariaLabel) ?? 0;
  }
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused && !place.contains(document.activeElement)) {
    (document.getElementById(focused) ?? document.querySelector("h1")).focus();
  }
}

let notes;

/** Where `note` speaks: one place, so that a screen reader hears it. */
export function notesArea() {
  notes = h("p", { class: "note", role: "status" });
  return notes;
}

export function note(text) {
  notes.textContent = text;
  notes.classList.remove("failed");
}

/** Do what a button says, once at a time; what fails is told. */
export async function doing(pressed, work) {
  if (pressed.ariaDisabled) return;
  pressed.ariaDisabled = "true"; // one that is disabled would lose the focus
  try {
    await work();
  } catch (error) {
    note(inWords(error));
    notes.classList.add("failed");
  }
  pressed.ariaDisabled = null;
}

/** Resolves to whether the question was answered with `yes`. */
export function confirmed(question, details, yes) {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "question", "aria-describedby": "details" },
    h("h2", { id: "question" }, question),
    h("div", { id: "details" }, details),
    h(
      "div",
      { class: "actions" },
      button("No, go back", () => dialog.close("no")),
      button(yes, () => dialog.close("yes"), { class: "primary" }),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
