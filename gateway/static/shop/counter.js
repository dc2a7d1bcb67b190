// What a shop's back office does: orders move, promotions start, something is recommended.

import { graphql } from "/static/shared/session.js";
import { admin, asAdmin } from "./back_office.js";
import { catalogue } from "./configuration.js";
import { STEPS } from "./customer.js";
import { button, element, fill } from "./elements.js";
import { attempt, tell } from "./messages.js";

const PROMOTE = `mutation Promote($input: PromotionInput!) {
  publishPromotion(input: $input) { eventId } }`;
const RECOMMEND = `mutation Recommend {
  createRecommendations { decision { outcome reason } notification { title } } }`;
const NEXT = ["", "Mark as paid", "Mark as packed", "Ship it", "Mark as delivered"];
const OFFERS = [
  ["Rain is coming", "All rain jackets are 20 % off until Sunday."],
  ["Sleep under stars", "Free delivery on every tent this week."],
  ["Run further", "Two pairs of running socks for the price of one."],
];
const NOT_SENT = {
  TOO_FEW_CANDIDATES:
    "Nothing was sent: there are fewer than three products left to recommend. Look at some more first.",
  TYPE_OFF: "Nothing was sent: you have switched recommendations off.",
  CHANNEL_OFF: "Nothing was sent: you have switched recommendations off in the app.",
  FREQUENCY_CAP: "Nothing was sent: that was enough advertising for now.",
};

export class Counter {
  constructor(parent, customer) {
    this._customer = customer;
    this._orders = element("div", { class: "orders", id: "orders", tabindex: "-1" });
    this._heard = element("ul", { class: "heard" });
    parent.replaceChildren(
      element("h2", { id: "counter-title" }, "Back office"),
      element(
        "p",
        { class: "small" },
        `Works as ${admin.name}, whose password everybody knows: this is a demo.`,
      ),
      part("Your orders", this._orders),
      part("Start a promotion", promotion()),
      part("Recommend something", recommendation()),
      part("What Tidings has heard", this._heard),
    );
  }

  show() {
    const { orders, heard } = this._customer;
    const nothing = element(
      "p",
      { class: "small" },
      "None yet. Buy something, then move it on here.",
    );
    fill(this._orders, orders.length ? orders.map((order) => this._order(order)) : nothing);
    const none = element("li", {}, "Nothing yet. Look at a product.");
    this._heard.replaceChildren(
      ...(heard.length ? heard.map((one) => element("li", {}, one)) : [none]),
    );
  }

  _order(order) {
    const names = order.items.map((id) => catalogue.get(id)?.name ?? id).join(", ");
    const status = STEPS[order.step];
    const next = NEXT[order.step + 1];
    const advance = async (event) => {
      const pressed = event.currentTarget;
      if (await attempt(pressed, () => this._customer.advance(order))) {
        tell(`Order ${order.id} is ${STEPS[order.step + 1]}.`);
      }
    };
    return element(
      "article",
      { class: "order", "aria-label": `Order ${order.id}` },
      element("strong", {}, order.id),
      element("span", { class: `status status-${status}` }, status),
      element("span", { class: "names" }, names),
      next ? button(next, advance, { id: `next-${order.id}` }) : null,
    );
  }
}

function part(title, ...children) {
  return element("section", { class: "part" }, element("h3", {}, title), ...children);
}

function promotion() {
  let turn = 0;
  const title = element("input", {
    id: "promotion-title",
    dir: "auto",
    maxLength: 500,
    required: true,
  });
  const body = element("textarea", {
    id: "promotion-body",
    dir: "auto",
    rows: 3,
    maxLength: 5000,
    required: true,
  });
  const offer = () => ([title.value, body.value] = OFFERS[turn++ % OFFERS.length]);
  const send = element("button", { type: "submit" }, "Send to everybody");
  const publish = async (event) => {
    event.preventDefault();
    const input = { title: title.value, body: body.value };
    if (await attempt(send, () => asAdmin(PROMOTE, { input }))) {
      tell(`“\u2068${input.title}\u2069” is on its way to everybody who wants promotions.`);
      offer();
    }
  };
  offer();
  return element(
    "form",
    { onsubmit: publish },
    element("label", {}, "Title", title),
    element("label", {}, "Text", body),
    send,
  );
}

function recommendation() {
  const recommend = async ({ currentTarget }) => {
    await attempt(currentTarget, async () => {
      const { decision, notification } = (await graphql(RECOMMEND)).createRecommendations;
      if (decision.outcome === "SENT") tell(`Sent: “\u2068${notification.title}\u2069”. Look at the bell.`);
      else tell(NOT_SENT[decision.reason] ?? `Nothing was sent: ${decision.reason}.`);
    });
  };
  return [
    element(
      "p",
      { class: "small" },
      "Up to five products that you may like, from what you and others did.",
    ),
    button("Recommend to me", recommend),
  ];
}
