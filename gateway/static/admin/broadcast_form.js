// A new broadcast: its words, who gets it, how many that are, and how it will look.

import { ApiError, inWords } from "../shared/api.js";
import { audienceForm } from "./audience_form.js";
import { audienceWords } from "./audience_words.js";
import { debounced, h, written } from "./dom.js";
import { clear, field, legible, placed } from "./forms.js";
import { ask } from "./server.js";
import { confirmed, note } from "./states.js";
import { counted, number } from "./words.js";

const COUNT = `query ($input: AudienceInput!) {
  audience(input: $input) { count isExact sample { id name } }
}`;
const CREATE = "mutation ($input: BroadcastInput!) { createBroadcast(input: $input) { id } }";

export function broadcastForm(signal) {
  const words = {
    title: field("Title", { autocomplete: "off", maxlength: 500 }),
    body: field("Text", { long: true, rows: 4, maxlength: 5000 }),
    perSecond: field("At most … a second", {
      type: "number",
      min: 1,
      advice: "Empty: as fast as it goes. A slow start spares the shop when all come at once.",
    }),
  };
  const audience = audienceForm();
  const fields = { ...words, ...audience.fields };
  const count = counting(audience, signal);
  const bell = preview(words);
  const trouble = h("p", { class: "fault", role: "alert" });
  const submit = h("button", { class: "primary" }, "Send …");
  const key = crypto.getRandomValues(new Uint32Array(4)).join("-"); // pressed twice, sent once

  async function send(event) {
    event.preventDefault();
    clear(fields);
    trouble.textContent = "";
    submit.disabled = true;
    try {
      await confirmAndSend(input(words, audience, key));
    } catch (error) {
      trouble.textContent = placed(error, fields) ? "" : inWords(error);
    }
    submit.disabled = false;
  }

  const form = h(
    "form",
    { class: "form card", submit: send, novalidate: true },
    words.title.row,
    words.body.row,
    audience.row,
    words.perSecond.row,
    trouble,
    h(
      "div",
      { class: "actions" },
      submit,
      h("a", { class: "button", href: "#broadcasts" }, "Go back"),
    ),
  );
  form.addEventListener("input", () => bell.draw());
  audience.row.addEventListener("input", debounced(400, count.run));
  count.run();
  return h("div", { class: "beside" }, form, h("aside", {}, count.place, bell.place));
}

function input(words, audience, dedupKey) {
  legible(words);
  return {
    title: words.title.value,
    body: words.body.value,
    perSecond: words.perSecond.value ? Number(words.perSecond.value) : null,
    audience: audience.read(),
    dedupKey,
  };
}

/** What the server refuses is refused before the question. */
async function confirmAndSend(input) {
  const missing = ["title", "body"].find((name) => !input[name].trim());
  if (missing) throw new ApiError("Write something here.", { field: `input.${missing}` });
  const { audience } = await ask(COUNT, { input: input.audience });
  const many = `${audience.isExact ? "" : "at least "}${counted(audience.count, "person", "people")}`;
  const details = [
    h(
      "p",
      {},
      "It goes out at once, to ",
      h("strong", {}, many),
      ": ",
      written(audienceWords(input.audience)),
      ". Who does not want promotions gets none.",
    ),
    h("p", { class: "said" }, h("strong", {}, written(input.title)), h("br"), written(input.body)),
  ];
  if (!(await confirmed(`Send it to ${many}?`, details, `Send to ${number(audience.count)}`)))
    return;
  await ask(CREATE, { input });
  addEventListener("hashchange", () => note(`“${input.title}” is on its way.`), { once: true });
  location.hash = "broadcasts";
}

function counting(audience, signal) {
  const answer = h("div", { role: "status" });
  const around = h("section", { class: "card" }, h("h2", {}, "Who that is now"), answer);
  let latest = 0;

  async function run() {
    const mine = ++latest;
    let said;
    clear(audience.fields);
    try {
      said = people(await ask(COUNT, { input: audience.read() }));
    } catch (error) {
      said = placed(error, audience.fields, { focus: false })
        ? h("p", { class: "quiet" }, "One of the conditions is not right yet.")
        : h("p", { class: "fault" }, inWords(error));
    }
    if (mine === latest && !signal.aborted) answer.replaceChildren(...[said].flat());
  }

  return { place: around, run };
}

function people({ audience: { count, isExact, sample } }) {
  const more = count - sample.length;
  return [
    h("p", { class: "value" }, isExact ? number(count) : `${number(count)} or more`),
    sample.length
      ? h(
          "p",
          {},
          sample.map((one, index) => [
            index ? ", " : "",
            h("a", { href: `#customers/${one.id}` }, written(one.name)),
          ]),
          more > 0 && ` and ${number(more)} more`,
        )
      : h("p", { class: "quiet" }, "Nobody fits all of that."),
  ];
}

function preview({ title, body }) {
  const heading = h("strong", {});
  const text = h("p", { class: "said" });
  const item = h(
    "div",
    { class: "bell" },
    h("span", { class: "dot" }),
    h("div", {}, heading, text, h("span", { class: "quiet" }, "Promotion · just now")),
  );

  function draw() {
    heading.replaceChildren(written(title.value || "The title"));
    text.replaceChildren(written(body.value || "The text."));
  }

  draw();
  return {
    draw,
    place: h("section", { class: "card" }, h("h2", {}, "How it looks in the bell"), item),
  };
}
