// Where one comes in: as somebody of the demo with a click, or by registering.

import { inWords } from "/static/shared/api.js";
import { register, signIn } from "/static/shared/session.js";
import { accounts, catalogue } from "./configuration.js";
import { button, element } from "./elements.js";
import { attempt } from "./messages.js";
import { art } from "./shelf.js";

const FIELDS = [
  ["name", "Name", { autocomplete: "name" }],
  ["email", "Email", { type: "email", autocomplete: "email" }],
  [
    "password",
    "Password (8 characters or more)",
    { type: "password", autocomplete: "new-password" },
  ],
];
const SHOWN = [
  "two-person-tent",
  "trail-shoes",
  "compass",
  "enamel-mug",
  "day-pack",
  "camp-lantern",
];

export function showDoor(parent, why) {
  const ended = why ? element("p", { class: "ended", role: "alert" }, why) : null;
  const people = accounts.map((account) => {
    const come = ({ currentTarget }) =>
      attempt(currentTarget, () => signIn(account.email, account.password));
    const enter = button("", come, { class: "person" });
    const does = account.role === "ADMIN" ? element("small", {}, "runs the shop") : null;
    const words = element("span", { class: "words" }, `Sign in as ${account.name}`, does);
    enter.append(face(account.name), words);
    return enter;
  });
  const shown = SHOWN.filter((id) => catalogue.has(id)).map((id) => art(catalogue.get(id)));
  parent.replaceChildren(
    element(
      "div",
      { class: "welcome" },
      element("div", { class: "arts", "aria-hidden": "true" }, shown),
      element("h2", {}, "Good things for going outside"),
      element(
        "p",
        {},
        "Browse, buy, and watch the bell: whatever happens to you here, Tidings tells you at once.",
      ),
    ),
    ...(ended ? [ended] : []),
    element(
      "div",
      { class: "ways" },
      element("div", { class: "people" }, element("h3", {}, "Come in as"), ...people),
      registration(),
    ),
  );
}

export function face(name) {
  const initials = name
    .split(/\s+/)
    .map((word) => [...word][0] ?? "")
    .slice(0, 2)
    .join("");
  return element("span", { class: "face", "aria-hidden": "true" }, initials.toUpperCase());
}

function registration() {
  const problem = element("p", { class: "wrong", role: "alert" });
  const fields = FIELDS.map(([name, label, more]) => {
    const wrong = element("span", { class: "wrong", id: `wrong-${name}` });
    const input = element("input", {
      id: `new-${name}`,
      "aria-describedby": wrong.id,
      oninput: () => mark(input, wrong, ""),
      ...more,
    });
    return { name, input, wrong, label: element("label", { for: input.id }, label) };
  });
  const submit = async (event) => {
    event.preventDefault();
    problem.textContent = "";
    for (const { input, wrong } of fields) mark(input, wrong, "");
    const given = Object.fromEntries(fields.map(({ name, input }) => [name, input.value]));
    await attempt(enter, async () => {
      try {
        await register({ ...given, ...habits() });
      } catch (error) {
        const field = fields.find(({ name }) => name === fieldOf(error));
        if (!field) problem.textContent = inWords(error);
        else mark(field.input, field.wrong, inWords(error));
        field?.input.focus();
      }
    });
  };
  const enter = element("button", { type: "submit", class: "main" }, "Register");
  return element(
    "form",
    { class: "registration", noValidate: true, onsubmit: submit },
    element("h3", {}, "Or register"),
    ...fields.map(({ label, input, wrong }) =>
      element("div", { class: "field" }, label, input, wrong),
    ),
    enter,
    problem,
  );
}

function mark(input, wrong, text) {
  wrong.textContent = text;
  input.ariaInvalid = text ? "true" : null;
}

/** Whose fault it is. A CONFLICT is an email that is taken. */
function fieldOf({ code, field }) {
  return code === "CONFLICT" ? "email" : field?.replace("input.", "");
}

function habits() {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  return { locale: navigator.language, ...(timeZone ? { timezone: timeZone } : {}) };
}
