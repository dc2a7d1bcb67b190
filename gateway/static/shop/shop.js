// The demo's shop: who is signed in decides what is shown.

import { graphql, load, onChange, signOut, token } from "/static/shared/session.js";
import { Basket } from "./basket.js";
import { catalogue } from "./configuration.js";
import { Counter } from "./counter.js";
import { Customer } from "./customer.js";
import { face, showDoor } from "./door.js";
import { closeDialogs, element, openDialog } from "./elements.js";
import { forgive } from "./messages.js";
import { Shelf } from "./shelf.js";

const AT_ONCE = 5_000; // milliseconds
const at = (id) => document.getElementById(id);
const door = at("door");
const shop = at("shop");
const tabs = [...document.querySelectorAll(".tabs button")];
let askedAt = 0; // when the bell last wanted a token
let visit = null; // {customer, shelf, counter, basket}

function show(session, why) {
  if (visit && session?.user.id === visit.customer.user.id) return; // renewed, and no more
  visit?.customer.leave();
  closeDialogs();
  forgive();
  door.hidden = Boolean(session);
  for (const part of [shop, at("tools")]) part.hidden = !session;
  at("operator").hidden = session?.user.role !== "ADMIN";
  for (const id of ["bell", "shelf", "counter", "door"]) at(id).replaceChildren();
  visit = session ? enter(session.user) : null;
  if (session) at("main").focus({ preventScroll: true });
  else showDoor(door, why);
}

function enter(user) {
  const customer = new Customer(user, catalogue, () => {
    for (const part of [shelf, counter, basket]) part.show();
  });
  const shelf = new Shelf(at("shelf"), customer);
  const counter = new Counter(at("counter"), customer);
  const basket = new Basket(at("open-basket"), customer, () => shelf.pick());
  at("name").textContent = user.name;
  at("face").replaceWith(Object.assign(face(user.name), { id: "face" }));
  for (const part of [shelf, counter, basket]) part.show();
  shelf.pick();
  const bell = document.createElement("tidings-inbox");
  bell.setAttribute("endpoint", "/graphql");
  bell.getToken = tokenForBell;
  at("bell").replaceChildren(bell);
  return { customer, shelf, counter, basket };
}

/** A token for the bell. Asked again at once: the server has refused the last one, so the session
    may be over, and then this page says so. */
async function tokenForBell() {
  const isAgain = Date.now() - askedAt < AT_ONCE;
  askedAt = Date.now();
  if (isAgain) await graphql("query Still { me { id } }");
  return token();
}

/** A notification that was opened in the bell, unless it has a link of its own. */
function read(event) {
  const { title, body, content, type, href } = event.detail.notification;
  if (href || !visit) return;
  event.preventDefault();
  if (type === "ORDER_UPDATE") turnTo("counter");
  openDialog(
    title,
    {},
    element("p", { dir: "auto" }, body),
    type === "RECOMMENDATION" ? visit.shelf.picks(content?.products ?? [], "told") : null,
  );
}

function turnTo(view) {
  shop.dataset.view = view;
  for (const tab of tabs) tab.ariaPressed = String(tab.dataset.view === view);
}

for (const tab of tabs) tab.onclick = () => turnTo(tab.dataset.view);
at("sign-out").onclick = () => signOut();
document.addEventListener("tidings-open", read);
onChange(show);
show(load(), "");
addEventListener("pageshow", ({ persisted }) => persisted && show(load(), ""));
