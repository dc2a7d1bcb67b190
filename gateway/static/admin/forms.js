// Fields with their labels and advice, and the place beside each where its error stands.

import { ApiError } from "../shared/api.js";
import { h } from "./dom.js";
import { fieldOf } from "./server.js";

let made = 0;

/** `row` goes into the form; `value` is what was typed; `fault(text)` says what is wrong. */
export function field(label, { advice, choices, long, ...attributes } = {}) {
  const id = `field-${++made}`;
  const described = `${id}-advice ${id}-fault`;
  const given = { id, "aria-describedby": described, ...attributes };
  const input = choices ? choice(choices, given) : h(long ? "textarea" : "input", given);
  if (long) input.value = attributes.value ?? "";
  const trouble = h("span", { class: "fault", id: `${id}-fault` });
  const row = h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    input,
    h("span", { class: "quiet", id: `${id}-advice` }, advice),
    trouble,
  );
  return {
    row,
    input,
    get value() {
      return input.value;
    },
    fault(text) {
      trouble.textContent = text;
      input.setAttribute("aria-invalid", Boolean(text));
      if (text) input.closest("details")?.setAttribute("open", "");
    },
  };
}

function choice(choices, { value, ...attributes }) {
  const options = choices.map(([code, name]) =>
    h("option", { value: code, selected: code === value }, name),
  );
  return h("select", attributes, options);
}

export function tick(label, attributes = {}) {
  const input = h("input", { type: "checkbox", ...attributes });
  return { row: h("label", { class: "tick" }, input, label), input };
}

/** What stands between commas. */
export function listed(text) {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
}

/** Puts the server's error beside the field that it is about, and the focus there; answers whether
 * there is one. */
export function placed(error, fields, { focus = true } = {}) {
  clear(fields);
  const path = fieldOf(error);
  const name = Object.keys(fields).find((name) => path === name || path.startsWith(`${name}.`));
  if (!name) return false;
  fields[name].fault(error.message);
  if (focus) fields[name].input.focus();
  return true;
}

/** Throws for a field of which the browser can make nothing: its `value` is as if it were empty. */
export function legible(fields) {
  for (const [name, { input }] of Object.entries(fields)) {
    if (input.validity.badInput) {
      const whole = input.type === "number" ? "a whole number" : "the date and the time";
      throw new ApiError(`Write ${whole}, or nothing.`, { field: `input.${name}` });
    }
  }
}

export function clear(fields) {
  for (const one of Object.values(fields)) one.fault("");
}
