// The basket, and buying what is in it.

import { catalogue } from "./configuration.js";
import { button, drawing, element, fill, openDialog } from "./elements.js";
import { attempt, tell } from "./messages.js";
import { art, price } from "./shelf.js";

export class Basket {
  /** `opener`: the button that shows it. `onBought`: called when an order is placed. */
  constructor(opener, customer, onBought) {
    this._opener = opener;
    this._customer = customer;
    this._onBought = onBought;
    opener.onclick = () => this._open();
  }

  show() {
    const count = this._customer.basket.size;
    this._opener.ariaLabel = `Basket, ${count} ${count === 1 ? "product" : "products"}`;
    const mark = count
      ? element("span", { class: "count", "aria-hidden": "true" }, String(count))
      : null;
    fill(this._opener, drawing("basket", "signs"), mark);
    if (this._rows?.isConnected) this._showRows();
  }

  _open() {
    this._rows = element("div", { class: "rows", id: "rows", tabindex: "-1" });
    this._dialog = openDialog("Your basket", { class: "basket" }, this._rows);
    this._showRows();
  }

  _showRows() {
    const chosen = [...this._customer.basket].map((id) => catalogue.get(id));
    const total = chosen.reduce((sum, product) => sum + product.price, 0);
    fill(
      this._rows,
      chosen.length ? chosen.map((product) => this._row(product)) : "Nothing in it yet.",
      chosen.length ? this._buying(total) : null,
    );
  }

  _row(product) {
    const take = button("Remove", () => this._customer.takeOut(product), {
      class: "quiet",
      id: `remove-${product.id}`,
      "aria-label": `Remove ${product.name}`,
    });
    return element(
      "div",
      { class: "row" },
      art(product),
      element("span", { class: "name" }, product.name),
      element("span", { class: "price" }, price(product.price)),
      take,
    );
  }

  _buying(total) {
    const buy = async () => {
      let order;
      const isBought = await attempt(pay, async () => (order = await this._customer.buy()));
      if (!isBought) return;
      this._dialog.close();
      tell(`Order ${order.id} is placed. Look at the bell.`);
      this._onBought();
    };
    const pay = button(`Buy for ${price(total)}`, buy, { class: "main" });
    return pay;
  }
}
