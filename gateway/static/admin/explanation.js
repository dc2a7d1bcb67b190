// Why somebody got something, or did not, and what would be decided now.

import { inWords } from "../shared/api.js";
import { button, h, written } from "./dom.js";
import { clear, field, placed } from "./forms.js";
import { ask } from "./server.js";
import {
  CHANNEL_CODES,
  TYPE_CODES,
  channelName,
  moment,
  outcomeName,
  reasonWords,
  ruleName,
  stateName,
  typeName,
} from "./words.js";

const DRY_RUN = `query ($id: ID!, $type: NotificationType!, $channel: Channel!) {
  decideDryRun(userId: $id, type: $type, channel: $channel) {
    channel outcome reason until at steps { rule spoke words } channels { channel outcome reason until state }
  }
}`;

/** A button that opens what `get` answers. */
export function why(get, title) {
  return button(
    "Why?",
    async (event) => {
      event.target.disabled = true;
      try {
        open(title ?? "Why?", explained(await get()));
      } catch (error) {
        open("That did not work.", h("p", {}, inWords(error)));
      }
      event.target.disabled = false;
      event.target.focus();
    },
    { "aria-label": `Why: ${title ?? "this one"}`, "aria-haspopup": "dialog" },
  );
}

function open(title, body) {
  const close = () => dialog.close();
  const heading = h("h2", { id: "why", tabindex: -1, autofocus: true }, written(title));
  const dialog = h(
    "dialog",
    { "aria-labelledby": "why", class: "wide" },
    heading,
    body,
    button("Close", close, { class: "primary" }),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function explained(explanation) {
  if (!explanation) {
    return h("p", {}, "Why is not known any more: it was decided too long ago, or has expired.");
  }
  const { channel, outcome, reason, until, at, steps, channels } = explanation;
  return h(
    "div",
    {},
    h(
      "p",
      {},
      h("strong", {}, `${channelName(channel)}: ${outcomeName(outcome)}. `),
      reasonWords(reason),
    ),
    h(
      "p",
      { class: "quiet" },
      `Decided on ${moment(at)}.`,
      until && ` It is decided anew on ${moment(until)}.`,
    ),
    h("h3", {}, "What was asked, in this order"),
    h("ol", { class: "steps" }, steps.map(stepOf)),
    channels.length > 0 && [
      h("h3", {}, "On other channels"),
      h(
        "ul",
        {},
        channels.map((one) =>
          h(
            "li",
            {},
            `${channelName(one.channel)}: ${stateName(one.state ?? one.outcome)}. ${reasonWords(one.reason)}`,
          ),
        ),
      ),
    ],
  );
}

function stepOf({ rule, spoke, words }) {
  return h(
    "li",
    { class: spoke ? "spoke" : "" },
    h("strong", {}, ruleName(rule)),
    " ",
    written(words),
    spoke && h("span", { class: "badge" }, "This decided"),
  );
}

export function dryRun(id, signal) {
  const type = field("Kind", { choices: TYPE_CODES.map((code) => [code, typeName(code)]) });
  const channel = field("Channel", {
    choices: CHANNEL_CODES.map((code) => [code, channelName(code)]),
  });
  const answer = h("div", { role: "status" });
  const submit = h("button", { class: "primary" }, "What would be decided?");

  async function decide(event) {
    event.preventDefault();
    clear({ type, channel });
    submit.disabled = true;
    try {
      const asked = { id, type: type.value, channel: channel.value };
      const { decideDryRun } = await ask(DRY_RUN, asked);
      if (!signal.aborted) answer.replaceChildren(explained(decideDryRun));
    } catch (error) {
      if (placed(error, { type, channel })) answer.replaceChildren();
      else answer.replaceChildren(h("p", { class: "fault" }, inWords(error)));
    }
    submit.disabled = false;
  }

  return h(
    "section",
    {},
    h("h2", {}, "If something came now"),
    h("p", { class: "quiet" }, "Nothing is sent: it is only tried out."),
    h("form", { class: "row", submit: decide }, type.row, channel.row, submit),
    answer,
  );
}
