// What the shop keeps of a customer in this browser: basket, wish list, orders. Both windows of one
// customer see the same. What customers do is told to Tidings.

import { graphql, inTurn } from "/static/shared/session.js";
import { asAdmin } from "./back_office.js";

export const STEPS = ["placed", "paid", "packed", "shipped", "delivered"];
const MOST_ORDERS = 20;
const MOST_HEARD = 6;
const TRACK = "mutation Track($input: ActivityInput!) { trackActivity(input: $input) }";
const ORDER = `mutation Order($input: OrderStatusInput!) {
  publishOrderStatus(input: $input) { eventId } }`;

export class Customer {
  /** `products`: the catalogue by id. `onChange`: called after each change, in either window. */
  constructor(user, products, onChange) {
    this.user = user;
    this.heard = [];
    this._key = `tidings.shop.${user.id}`;
    this._products = products;
    this._onChange = onChange;
    this._read();
    this._listener = ({ key }) => key === this._key && (this._read(), onChange());
    addEventListener("storage", this._listener);
    this._tellPurchases();
  }

  leave() {
    this._hasLeft = true;
    removeEventListener("storage", this._listener);
  }

  async view(product) {
    await this._track("VIEW", product, "viewed");
    await this._tellPurchases();
  }

  async wish(product, wished) {
    if (wished) await this._track("WISHLIST", product, "wished for");
    this.wishes.delete(product.id);
    if (wished) this.wishes.add(product.id);
    this._changed();
  }

  async putIntoBasket(product) {
    await this._track("CART", product, "put into the basket:");
    this.basket.add(product.id);
    this._changed();
  }

  takeOut(product) {
    this.basket.delete(product.id);
    this._changed();
  }

  /** The order, placed. Done again after a failure it is the same order. */
  async buy() {
    const items = [...this.basket];
    const isAgain = this.attempt?.items.join() === items.join();
    const order = isAgain ? this.attempt : { id: newOrderId(), items, step: 0 };
    this.attempt = order;
    this._keep();
    await this._publish(order, 0);
    this.attempt = null;
    for (const id of items) this.basket.delete(id);
    this.orders = [order, ...this.orders].slice(0, MOST_ORDERS);
    this.untold = [...this.untold, ...items];
    this._changed();
    await this._tellPurchases();
    return order;
  }

  /** The back office does the next step of an order. */
  async advance(order) {
    const step = order.step + 1;
    await this._publish(order, step);
    this.orders = this.orders.map((one) => (one.id === order.id ? { ...one, step } : one));
    this._changed();
  }

  async _publish({ id, items }, step) {
    const status = STEPS[step];
    const names = items.map((item) => this._products.get(item)?.name ?? item);
    const input = {
      orderId: id,
      userId: this.user.id,
      status,
      version: step + 1,
      details: { products: names },
      eventId: `shop/${this.user.id}/${id}/${status}`,
    };
    await asAdmin(ORDER, { input });
    this._hear(`order ${id}: ${status}`);
  }

  /** The order is placed, whether or not Tidings hears what was bought: later, if not now. */
  _tellPurchases() {
    this._telling ??= this._tellAll().finally(() => (this._telling = null));
    return this._telling;
  }

  /** One window at a time: else two would tell the same. */
  async _tellAll() {
    try {
      await inTurn(this._key, async () => {
        this._read();
        while (this.untold.length && !this._hasLeft) {
          const [first] = this.untold;
          await this._track("PURCHASE", this._products.get(first), "bought");
          const told = this.untold.indexOf(first);
          this.untold = this.untold.filter((_, place) => place !== told);
          this._keep();
        }
      });
    } catch {
      // What is left is kept, and told when the next product is looked at.
    }
  }

  async _track(kind, product, words) {
    await graphql(TRACK, { input: { kind, productId: product.id } });
    this._hear(`${words} ${product.name}`);
  }

  _hear(what) {
    this.heard = [what, ...this.heard].slice(0, MOST_HEARD);
    this._onChange();
  }

  _changed() {
    this._keep();
    this._onChange();
  }

  _keep() {
    const { basket, wishes, orders, attempt, untold } = this;
    const kept = { basket: [...basket], wishes: [...wishes], orders, attempt, untold };
    localStorage.setItem(this._key, JSON.stringify(kept));
  }

  _read() {
    const kept = JSON.parse(localStorage.getItem(this._key)) ?? {};
    const known = (ids) => new Set((ids ?? []).filter((id) => this._products.has(id)));
    this.basket = known(kept.basket);
    this.wishes = known(kept.wishes);
    this.orders = kept.orders ?? [];
    this.attempt = kept.attempt ?? null;
    this.untold = (kept.untold ?? []).filter((id) => this._products.has(id));
  }
}

function newOrderId() {
  return `F${String(Date.now() % 10_000_000).padStart(7, "0")}`;
}
