// Elements of the page. Texts are only ever set as text: no name or title can become HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `given`: attributes, `on…` listeners, and properties that are no strings. */
export function element(name, given = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "string") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.flat().filter((child) => child !== null));
  return made;
}

export function button(text, onclick, given = {}) {
  return element("button", { type: "button", onclick, ...given }, text);
}

/** The drawing `id` of a file of drawings. */
export function drawing(id, file = "products") {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/shop/${file}.svg#${id}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** New children; what had the focus keeps it, when its `id` is still there. */
export function fill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.id : "";
  parent.replaceChildren(...children.flat().filter((child) => child !== null));
  if (focused) (document.getElementById(focused) ?? parent).focus();
}

/** A dialog, instead of any other; gone when it is closed: by its button, Escape or a click beside it. */
export function openDialog(title, given, ...children) {
  const opener = document.activeElement;
  closeDialogs();
  const heading = element("h2", { id: "dialog-title", dir: "auto" }, title);
  const close = button("", () => dialog.close(), {
    class: "quiet icon close",
    "aria-label": "Close",
  });
  close.append(drawing("close", "signs"));
  const content = element("div", { class: "content" }, heading, ...children, close);
  const dialog = element("dialog", { "aria-labelledby": "dialog-title", ...given }, content);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (document.activeElement !== document.body) return;
    // What opened it may have been drawn anew; of the bell, what was in its panel is hidden by now.
    const again = document.getElementById(opener.id) ?? opener;
    (again.shadowRoot?.querySelector("button") ?? again).focus();
  });
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

export function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}
