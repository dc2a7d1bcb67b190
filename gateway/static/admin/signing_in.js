// What somebody sees who is no admin: why, and a form to become one.

import { inWords } from "../shared/api.js";
import { signIn } from "../shared/session.js";
import { demoAdmins } from "./configuration.js";
import { button, h, written } from "./dom.js";
import { field } from "./forms.js";

/** `user`: who is signed in, if anybody; `why`: what has ended their session. */
export function gate(user, why) {
  const email = field("Email", { name: "email", type: "email", autocomplete: "username" });
  const password = field("Password", {
    name: "password",
    type: "password",
    autocomplete: "current-password",
  });
  const trouble = h("p", { class: "fault", role: "alert" });
  const submit = h("button", { class: "primary" }, "Sign in");

  async function enter(as) {
    trouble.textContent = "";
    submit.disabled = true;
    try {
      await signIn(as.email, as.password);
    } catch (error) {
      trouble.textContent = inWords(error);
    }
    submit.disabled = false;
  }

  function typed(event) {
    event.preventDefault();
    enter({ email: email.value.trim(), password: password.value });
  }

  return h(
    "section",
    { class: "gate card" },
    h("h2", {}, user ? "This page is for admins" : "Sign in"),
    user
      ? h(
          "p",
          {},
          "You are signed in as ",
          written(user.name),
          ", who is none. Sign in as an admin to see it.",
        )
      : h("p", {}, "This page is for the admins of the shop."),
    why && h("p", { class: "fault" }, why),
    h("form", { submit: typed, novalidate: true }, email.row, password.row, trouble, submit),
    demoAdmins.map((admin) => button(`Sign in as ${admin.name}`, () => enter(admin))),
  );
}
