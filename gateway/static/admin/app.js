// The operator's page: who may see it, which pane is shown, and whether the server is there.

import * as session from "../shared/session.js";
import { broadcasts, newBroadcast } from "./broadcasts.js";
import { hasOtherPages } from "./configuration.js";
import { customer, customers } from "./customers.js";
import { deadLetters } from "./dead_letters.js";
import { button, h } from "./dom.js";
import { overview } from "./overview.js";
import { editSchedule, schedules } from "./schedules.js";
import { onReach } from "./server.js";
import { gate } from "./signing_in.js";
import { note, notesArea } from "./states.js";
import { ago, keepTimesRight } from "./words.js";

// Each pane shows itself in `place` until `signal` is aborted; what follows its name in the
// address comes with it.
const PANES = {
  overview: { title: "Overview", show: overview },
  schedules: { title: "Schedules", show: schedules, inner: editSchedule },
  customers: { title: "Customers", show: customers, inner: customer },
  "dead-letters": { title: "Dead letters", show: deadLetters },
  broadcasts: { title: "Broadcasts", show: broadcasts, inner: newBroadcast },
};

const heading = h("h1", { tabindex: -1, dir: "auto" });
const place = h("div", { class: "pane" });
const alarm = h("strong", { role: "status" });
const since = h("span", {}); // its time changes each second, which nobody wants to hear
const banner = h("div", { class: "banner" }, alarm, since);
const who = h("p", { class: "who" });
const links = Object.entries(PANES).map(([name, { title }]) => h("a", { href: `#${name}` }, title));
const navigation = h("nav", { "aria-label": "Panes" }, links);
let shown = new AbortController();
let user = null;

function show(why = "") {
  shown.abort();
  shown = new AbortController();
  user = session.load()?.user ?? null;
  const isAdmin = user?.role === "ADMIN";
  navigation.hidden = !isAdmin;
  showWho();
  place.replaceChildren();
  note("");
  if (isAdmin) showPane();
  else showGate(why);
}

function showPane() {
  const [name, inner] = location.hash.slice(1).split("/");
  const chosen = PANES[name] && (!inner || PANES[name].inner) ? name : "overview";
  const pane = PANES[chosen];
  for (const link of links) link.removeAttribute("aria-current");
  const current = links.find((link) => link.hash === `#${chosen}`);
  current.setAttribute("aria-current", "page");
  navigation.scrollLeft = current.offsetLeft - navigation.clientWidth / 3;
  titled(pane.title);
  const view = inner && chosen === name ? pane.inner : pane.show;
  view(place, shown.signal, inner, titled);
}

function showGate(why) {
  titled("Operator’s page");
  place.replaceChildren(gate(user, why));
}

function titled(title) {
  heading.textContent = title;
  document.title = `${title} – Tidings`;
}

function showWho() {
  who.replaceChildren();
  if (!user) return;
  who.append(
    h("bdi", {}, user.name),
    button("Sign out", () => session.signOut()),
  );
}

function showReach({ problem, seenAt }) {
  alarm.textContent = problem ?? "";
  if (problem) {
    since.replaceChildren(" Last seen ", ago(new Date(seenAt).toISOString()), ". Trying again …");
    return;
  }
  since.replaceChildren();
  for (const again of place.querySelectorAll(".state.bad button")) again.click();
}

function otherPages() {
  const shop = h("a", { href: "/" }, "Shop");
  const graphiql = h("a", { href: "/graphql" }, "GraphiQL");
  return h("p", { class: "elsewhere" }, shop, graphiql);
}

function move() {
  show();
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function changed(now, why) {
  if (now?.user.id !== user?.id || now?.user.role !== user?.role) {
    show(why);
    heading.focus();
  }
}

document.getElementById("admin").replaceChildren(
  button("Skip to the content", () => heading.focus(), { class: "skip" }),
  h(
    "header",
    {},
    h("p", { class: "brand" }, "Tidings"),
    navigation,
    hasOtherPages && otherPages(),
    who,
  ),
  h("main", {}, banner, heading, notesArea(), place),
);
keepTimesRight();
onReach(showReach);
session.onChange(changed);
addEventListener("hashchange", move);
show();
