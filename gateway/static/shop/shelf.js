// The catalogue: what may please, categories, a search, and a page for each product.

import { graphql } from "/static/shared/session.js";
import { catalogue, categories, products } from "./configuration.js";
import { button, drawing, element, fill, openDialog } from "./elements.js";
import { attempt, tell } from "./messages.js";

const RECOMMENDED = "query Picked { recommendations(first: 4) { productId name reason } }";
const EVERYTHING = "Everything";
const WISHES = "Wish list";

export const price = (euros) => `€ ${euros}`;

export class Shelf {
  constructor(parent, customer) {
    this._customer = customer;
    this._category = EVERYTHING;
    this._picked = element("section", { class: "picked", "aria-label": "Picked for you" });
    this._chips = element("div", { class: "chips", role: "group", "aria-label": "Categories" });
    this._search = element("input", {
      type: "search",
      placeholder: "Search the shop",
      "aria-label": "Search the shop",
      oninput: () => this._showCards(),
    });
    this._cards = element("div", { class: "cards", id: "cards", tabindex: "-1" });
    const finding = element("div", { class: "finding" }, this._search, this._chips);
    parent.replaceChildren(this._picked, finding, this._cards);
  }

  /** Hearts are all that changes here without a click here. */
  show() {
    const wishes = [...this._customer.wishes].join();
    if (wishes !== this._shown) this._showAll();
    this._shown = wishes;
  }

  _showAll() {
    const names = [EVERYTHING, WISHES, ...categories];
    fill(
      this._chips,
      names.map((name) => this._chip(name)),
    );
    this._showCards();
  }

  /** What Tidings would recommend now. */
  async pick() {
    try {
      const { recommendations } = await graphql(RECOMMENDED);
      this._showPicked(recommendations);
    } catch {
      this._showPicked([]); // beside what one came for: what is wrong, the next click tells
    }
  }

  open(id) {
    const product = catalogue.get(id);
    if (!product) return;
    this._dialog = openDialog(
      product.name,
      { class: "product" },
      art(product),
      element("p", { class: "about" }, product.about),
      element("p", { class: "price" }, price(product.price)),
      element("div", { class: "buttons" }, this._basketButton(product), this._heart(product, true)),
    );
    attempt(null, () => this._customer.view(product)).then(() => this.pick());
  }

  _showPicked(recommendations) {
    const heading = element("h2", {}, "Picked for you");
    fill(
      this._picked,
      recommendations.length ? [heading, this.picks(recommendations, "pick")] : [],
    );
  }

  /** A button for each recommendation. `place`: begins their ids. */
  picks(recommendations, place) {
    const known = recommendations.filter(({ productId }) => catalogue.has(productId));
    return element(
      "div",
      { class: "picks" },
      known.map((one) => this._pick(one, place)),
    );
  }

  _pick({ productId, name, reason }, place) {
    const words = element(
      "span",
      { class: "words" },
      element("strong", { dir: "auto" }, name),
      element("small", { dir: "auto" }, reason),
    );
    const open = button("", () => this.open(productId), {
      class: "pick",
      id: `${place}-${productId}`,
    });
    open.append(art(catalogue.get(productId)), words);
    return open;
  }

  _chip(name) {
    const count = this._customer.wishes.size;
    const text = name === WISHES ? `${WISHES} (${count})` : name;
    const choose = () => {
      this._category = name;
      this._showAll();
    };
    const id = `chip-${name.replaceAll(" ", "-")}`;
    return button(text, choose, {
      class: "chip",
      id,
      "aria-pressed": String(name === this._category),
    });
  }

  _showCards() {
    const words = this._search.value.trim().toLowerCase().split(/\s+/);
    const found = products.filter(
      (product) => this._isChosen(product) && words.every((word) => isAbout(product, word)),
    );
    const nothing =
      this._category === WISHES && !this._customer.wishes.size
        ? "Nothing here yet: press the heart of what you would like."
        : "Nothing of that kind here. Try another word, or another category.";
    const empty = element("p", { class: "empty" }, nothing);
    fill(this._cards, found.length ? found.map((product) => this._card(product)) : [empty]);
  }

  _isChosen({ id, category }) {
    if (this._category === WISHES) return this._customer.wishes.has(id);
    return this._category === EVERYTHING || this._category === category;
  }

  _card(product) {
    const open = button("", () => this.open(product.id), {
      class: "open",
      id: `open-${product.id}`,
    });
    open.append(art(product), element("span", { class: "name" }, product.name));
    return element(
      "article",
      { class: "card" },
      open,
      element("span", { class: "price" }, price(product.price)),
      this._heart(product),
    );
  }

  _heart(product, isLarge = false) {
    const press = async () => {
      const wished = !this._customer.wishes.has(product.id);
      if (!(await attempt(heart, () => this._customer.wish(product, wished)))) return;
      heart.ariaPressed = String(wished);
      if (wished) tell(`${product.name} is on your wish list.`);
      this.pick();
    };
    const heart = button("", press, {
      class: "quiet icon heart",
      id: `${isLarge ? "wish" : "heart"}-${product.id}`,
      "aria-label": `Wish for ${product.name}`,
      "aria-pressed": String(this._customer.wishes.has(product.id)),
    });
    heart.append(drawing("heart", "signs"));
    return heart;
  }

  _basketButton(product) {
    const put = async () => {
      if (!(await attempt(add, () => this._customer.putIntoBasket(product)))) return;
      this._dialog.close();
      tell(`${product.name} is in your basket.`);
      this.pick();
    };
    const add = button("Add to basket", put, { class: "main" });
    return add;
  }
}

export function art(product) {
  const place = categories.indexOf(product.category) % 8;
  return element("span", { class: `art art-${place}` }, drawing(product.id));
}

function isAbout({ name, category, about }, word) {
  return `${name} ${category} ${about}`.toLowerCase().includes(word);
}
