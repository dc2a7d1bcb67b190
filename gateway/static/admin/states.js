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

/** Shows what `get` answers, and before that that it is on its way. While the same `question` is
 * asked anew, and while the server is away, what was answered last stays. Answers how to ask. */
export function filled(place, signal, get, show, question = () => "") {
  let latest = 0;
  let isPending = false;
  let shown = {};

  function put(now, nodes) {
    if (now.asked === shown.asked && now.said === shown.said) return;
    inPlace(place, nodes);
    shown = now;
  }

  async function run({ isTick } = {}) {
    if (isTick && isPending) return;
    const mine = ++latest;
    const counts = () => mine === latest && !signal.aborted;
    const asked = question();
    isPending = true;
    if (asked !== shown.asked) put({ asked }, loading);
    try {
      const answer = await get();
      if (counts()) {
        put({ asked, said: JSON.stringify(answer), isAnswer: true }, () => show(answer));
      }
    } catch (error) {
      const isKept = isAway(error) && shown.isAnswer;
      if (counts() && !isKept) put({ asked, said: inWords(error) }, () => problem(error, begin));
    }
    if (mine === latest) isPending = false;
  }

  function begin() {
    put({ asked: question() }, loading);
    return run();
  }

  run();
  return run;
}

/** Asks every five seconds while the page is in sight, and at once when it comes into sight again.
 * What has not been answered yet is waited for. */
export function whileVisible(signal, run, everyMs = () => EVERY_MS) {
  let timer;
  const tick = () => document.hidden || run({ isTick: true });
  const wait = () => (timer = setTimeout(() => (tick(), wait()), everyMs()));
  document.addEventListener("visibilitychange", tick, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  wait();
}

/** Puts what `show` makes into the place: the focus, and what was scrolled or opened, stay. */
export function inPlace(place, show) {
  const focused = place.contains(document.activeElement) && (document.activeElement.id || "-");
  const scrolled = new Map(
    [...place.querySelectorAll(".scrolls")].map((one) => [one.id, one.scrollLeft]),
  );
  const open = [...place.querySelectorAll("details[open][id]")].map(({ id }) => id);
  const nodes = [show()].flat(Infinity);
  const isThere = nodes.length === place.childNodes.length;
  if (!isThere || nodes.some((node, index) => node !== place.childNodes[index])) {
    place.replaceChildren(...nodes);
  }
  for (const one of place.querySelectorAll(".scrolls")) {
    one.scrollLeft = scrolled.get(one.id) ?? 0;
  }
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused && !place.contains(document.activeElement)) {
    const again = document.getElementById(focused) ?? document.querySelector("h1");
    again.focus({ preventScroll: true });
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
