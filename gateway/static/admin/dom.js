// Elements, made without HTML: what people wrote is only ever text.

/** An element. A function among the attributes listens to the event of its name. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (isGiven(value)) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(isGiven));
  return element;
}

function isGiven(value) {
  return value !== null && value !== undefined && value !== false;
}

/** What somebody wrote, in whichever direction its script runs. */
export function written(text) {
  return h("bdi", {}, text);
}

export function button(label, press, attributes = {}) {
  return h("button", { type: "button", click: press, ...attributes }, label);
}

/** A table that scrolls inside itself; its caption is its own on the page. `rows`: cells as strings or elements. */
export function table(caption, headings, rows) {
  const head = headings.map((heading) => h("th", { scope: "col" }, heading));
  const body = rows.map((cells) =>
    h(
      "tr",
      {},
      cells.map((cell, column) => h(column ? "td" : "th", column ? {} : { scope: "row" }, cell)),
    ),
  );
  return h(
    "div",
    {
      class: "scrolls",
      id: `table-${caption.replaceAll(/\W+/g, "-")}`,
      tabindex: 0,
      role: "region",
      "aria-label": caption,
    },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, head)),
      h("tbody", {}, body),
    ),
  );
}

/** Names of things and what they are. */
export function facts(pairs) {
  const given = pairs.filter(([, value]) => isGiven(value) && value !== "");
  return h(
    "dl",
    { class: "facts" },
    given.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** Runs when nothing was typed for a while. */
export function debounced(milliseconds, run) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
}
