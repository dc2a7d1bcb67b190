// Four curves of the last hour, a step for each minute, and the same as a table.

import { button, h, svg, table } from "./dom.js";
import { clock, number } from "./words.js";

const SERIES = [
  ["events", "Events handled"],
  ["sent", "Notifications sent"],
  ["suppressed", "Not sent, or held"],
  ["failed", "Failed"],
];
const WIDTH = 600;
const HEIGHT = 120;

/** Puts plots into `place`; answers how to draw them with other minutes. */
export function plots(place) {
  const drawings = SERIES.map(([name, title]) => plot(name, title));
  const numbers = h("div", { id: "numbers", hidden: true });
  const toggle = button("Show as a table", flip, {
    "aria-expanded": false,
    "aria-controls": "numbers",
  });

  function flip() {
    numbers.hidden = !numbers.hidden;
    toggle.setAttribute("aria-expanded", !numbers.hidden);
    toggle.textContent = numbers.hidden ? "Show as a table" : "Hide the table";
  }

  place.append(
    h("div", { class: "titled" }, h("h2", {}, "The last hour, minute by minute"), toggle),
    h(
      "div",
      { class: "plots" },
      drawings.map((drawing) => drawing.figure),
    ),
    numbers,
  );
  return (minutes) => {
    for (const drawing of drawings) drawing.draw(minutes);
    numbers.replaceChildren(asTable(minutes));
  };
}

function asTable(minutes) {
  const rows = minutes
    .map((minute) => [clock(minute.at), ...SERIES.map(([name]) => number(minute[name]))])
    .reverse();
  const headings = ["Minute", ...SERIES.map(([, title]) => title)];
  return table("The last hour, minute by minute, the newest first", headings, rows);
}

function plot(name, title) {
  const readout = h("span", { class: "readout" });
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const marker = svg("rect", { class: "marker", y: 0, height: HEIGHT, visibility: "hidden" });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    marker,
    area,
    line,
  );
  const most = h("span", { class: "most" });
  const ends = h("span", { class: "ends" });
  let minutes = [];

  function summary() {
    const sum = minutes.reduce((total, minute) => total + minute[name], 0);
    readout.textContent = `${number(sum)} in the hour`;
  }

  function point(event) {
    const { left, width } = picture.getBoundingClientRect();
    const index = Math.floor(((event.clientX - left) / width) * minutes.length);
    const minute = minutes[Math.max(0, Math.min(minutes.length - 1, index))];
    if (!minute) return;
    readout.textContent = `${clock(minute.at)}: ${number(minute[name])}`;
    marker.setAttribute("x", (minutes.indexOf(minute) / minutes.length) * WIDTH);
    marker.setAttribute("width", WIDTH / minutes.length);
    marker.setAttribute("visibility", "visible");
  }

  function leave() {
    marker.setAttribute("visibility", "hidden");
    summary();
  }

  function draw(given) {
    minutes = given;
    const values = minutes.map((minute) => minute[name]);
    const top = roundedUp(Math.max(...values, 1));
    const steps = values.map((value, index) => step(value / top, index, values.length));
    line.setAttribute("d", `M${steps.join("L")}`);
    area.setAttribute("d", `M0,${HEIGHT}L${steps.join("L")}L${WIDTH},${HEIGHT}Z`);
    most.textContent = number(top);
    ends.replaceChildren(
      ...[minutes[0], minutes[Math.floor(minutes.length / 2)], minutes.at(-1)].map((minute) =>
        h("span", {}, clock(minute.at)),
      ),
    );
    const peak = minutes[values.indexOf(Math.max(...values))];
    picture.setAttribute(
      "aria-label",
      `${title}: at most ${number(peak[name])} a minute, at ${clock(peak.at)}; ${number(values.at(-1))} in this minute so far.`,
    );
    if (marker.getAttribute("visibility") === "hidden") summary();
  }

  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerleave", leave);
  const caption = h("figcaption", {}, h("span", {}, title), readout);
  return {
    draw,
    figure: h("figure", { class: `plot card ${name}` }, caption, most, picture, ends),
  };
}

/** Both ends of a minute's step. */
function step(share, index, count) {
  const y = HEIGHT - share * (HEIGHT - 4);
  return `${(index / count) * WIDTH},${y}L${((index + 1) / count) * WIDTH},${y}`;
}

/** 1, 2, 3 or 5 times a power of ten. */
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 5, 10].map((times) => times * power).find((rounded) => rounded >= value);
}
