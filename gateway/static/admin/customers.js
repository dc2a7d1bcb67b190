// One customer: what they got, what they did not get and why, and what they would get now.

import { debounced, facts, h, table, written } from "./dom.js";
import { dryRun, why } from "./explanation.js";
import { field } from "./forms.js";
import { pages } from "./pages.js";
import { ask } from "./server.js";
import { empty, filled } from "./states.js";
import { ago, moment, outcomeName, reasonWords, typeName, when } from "./words.js";

const SEARCH = `query ($search: String!) {
  users(search: $search, first: 20) { id name email role createdAt }
}`;
const USER = `query ($id: ID!) {
  user(id: $id) { id name email role locale timezone tags createdAt disabledAt }
}`;
const NOTIFICATIONS = `query ($id: ID!, $after: String, $archived: Boolean!, $snoozed: Boolean!) {
  page: notifications(userId: $id, first: 20, after: $after, archived: $archived, snoozed: $snoozed) {
    edges { node { id type title body sentAt readAt archived snoozedUntil } }
    pageInfo { hasNextPage endCursor }
  }
}`;
const EXPLAIN = `query ($id: ID!, $user: ID!) {
  explain(notificationId: $id, userId: $user) {
    channel outcome reason until at steps { rule spoke words }
    channels { channel outcome reason until state }
  }
}`;
const DECISIONS = `query ($id: ID!, $after: String) {
  page: decisions(userId: $id, first: 20, after: $after) {
    edges { node {
      type title channel outcome reason until at steps { rule spoke words }
      channels { channel outcome reason until state }
    } }
    pageInfo { hasNextPage endCursor }
  }
}`;
const PLACES = [
  ["inbox", "In the inbox"],
  ["archived", "Put away"],
  ["snoozed", "Asleep"],
];
let searched = "";

export function customers(place, signal) {
  const search = field("Search", {
    type: "search",
    value: searched,
    autocomplete: "off",
    advice: "How the name or the email address begins, or a customer’s id.",
  });
  const found = h("div", {});

  const question = () => (searched = search.value.trim());
  const get = async () => (searched ? (await ask(SEARCH, { search: searched })).users : null);
  const again = filled(found, signal, get, resultsOf, question);
  const form = h("form", { role: "search", submit: (event) => event.preventDefault() }, search.row);
  search.input.addEventListener("input", debounced(250, again));
  form.addEventListener("submit", again);
  place.append(form, found);
}

function resultsOf(users) {
  if (!users) return h("p", { class: "quiet" }, "Whom are you looking for?");
  if (!users.length)
    return empty("Nobody is found.", "Try the first letters of the name or the address.");
  const rows = users.map((user) => [
    h("a", { href: `#customers/${user.id}`, id: `user-${user.id}` }, written(user.name)),
    written(user.email),
    user.role.toLowerCase(),
    when(user.createdAt),
  ]);
  return table("Customers found", ["Name", "Email", "Role", "Registered"], rows);
}

export function customer(place, signal, id, titled) {
  titled("Customer");
  const body = h("div", {});
  place.append(h("p", {}, h("a", { href: "#customers" }, "Search again")), body);
  filled(
    body,
    signal,
    () => ask(USER, { id }),
    ({ user }) => {
      if (!user) return empty("There is no such customer.", "They may have been deleted.");
      titled(user.name);
      return [
        about(user),
        received(user.id, signal),
        missed(user.id, signal),
        dryRun(user.id, signal),
      ];
    },
  );
}

function about(user) {
  return facts([
    ["Email", written(user.email)],
    ["Id", h("code", {}, user.id)],
    ["Role", user.role !== "USER" && user.role.toLowerCase()],
    ["Language", user.locale],
    ["Time zone", user.timezone],
    ["Tags", user.tags.join(", ")],
    ["Registered", moment(user.createdAt)],
    ["Locked out since", user.disabledAt && moment(user.disabledAt)],
  ]);
}

function received(id, signal) {
  const where = field("Show", { choices: PLACES });
  const list = h("div", {});
  const get = async (after) => {
    const asked = { archived: where.value === "archived", snoozed: where.value === "snoozed" };
    return (await ask(NOTIFICATIONS, { id, after, ...asked })).page;
  };
  const show = (nodes) =>
    nodes.length
      ? table(
          "Notifications",
          ["Title", "Kind", "Sent", "Read", "Why"],
          nodes.map((one) => row(one, id)),
        )
      : empty("Nothing here.", "What they get is listed here, the newest first.");
  const again = pages(list, signal, get, show, () => where.value);
  where.input.addEventListener("change", again);
  return h("section", {}, h("h2", {}, "Notifications"), where.row, list);
}

function row(one, user) {
  const get = async () => (await ask(EXPLAIN, { id: one.id, user })).explain;
  return [
    [written(one.title), h("span", { class: "quiet line clipped" }, written(one.body))],
    typeName(one.type),
    when(one.sentAt),
    standing(one),
    why(get, one.title),
  ];
}

function standing({ readAt, archived, snoozedUntil }) {
  if (snoozedUntil) return ["Sleeps, comes back ", ago(snoozedUntil)];
  const read = readAt ? ["Read ", ago(readAt)] : "Unread";
  return archived ? [read, h("span", { class: "quiet line" }, "Put away")] : read;
}

function missed(id, signal) {
  const list = h("div", {});
  const get = async (after) => (await ask(DECISIONS, { id, after })).page;
  const show = (nodes) => {
    if (!nodes.length)
      return empty("They got everything.", "What is decided against is listed here.");
    const rows = nodes.map((one) => [
      one.title ? written(one.title) : typeName(one.type),
      typeName(one.type),
      [outcomeName(one.outcome), h("span", { class: "quiet line" }, reasonWords(one.reason))],
      when(one.at),
      why(() => one, one.title),
    ]);
    return table(
      "What they did not get",
      ["Title", "Kind", "What became of it", "Decided", "Why"],
      rows,
    );
  };
  pages(list, signal, get, show);
  return h("section", {}, h("h2", {}, "What they did not get"), list);
}
