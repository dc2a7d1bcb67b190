// What the page tells people: what went well for a moment, what went wrong until they close it.

import { inWords } from "/static/shared/api.js";
import { button, drawing, element } from "./elements.js";

const SHOWN = 5_000; // milliseconds
const news = document.getElementById("news");
const problem = document.getElementById("problem");
const homes = new Map([news, problem].map((box) => [box, box.parentElement]));
let hiding;

export function tell(text) {
  clearTimeout(hiding);
  place(news, element("p", { dir: "auto" }, text));
  hiding = setTimeout(() => news.replaceChildren(), SHOWN);
}

export function complain(text) {
  const close = button("", forgive, { class: "quiet icon", "aria-label": "Dismiss" });
  close.append(drawing("close", "signs"));
  place(problem, element("p", { dir: "auto" }, text), close);
}

export function forgive() {
  problem.replaceChildren();
}

/** Does what a button is for: once at a time, and says what went wrong. True: it went well. */
export async function attempt(pressed, work) {
  if (pressed?.ariaBusy === "true") return false;
  if (pressed) pressed.ariaBusy = "true";
  try {
    await work();
    forgive();
    return true;
  } catch (error) {
    complain(inWords(error));
    return false;
  } finally {
    if (pressed) pressed.ariaBusy = null;
  }
}

// All beside an open dialog is inert: then messages are in it.
function place(box, ...children) {
  const dialog = [...document.querySelectorAll("dialog[open] .content")].pop();
  (dialog ?? homes.get(box)).append(box);
  box.replaceChildren(...children);
}

document.addEventListener("close", () => homes.forEach((home, box) => home.append(box)), true);
