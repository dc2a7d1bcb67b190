// What this page asks the server, and whether it answers: while it is away, somebody is told, and
// the page asks again by itself until it is back.

import { ApiError } from "../shared/api.js";
import { graphql, load } from "../shared/session.js";

export const BROKER_AWAY = "The broker does not tell: is it there?";
const STILL = "{ me { id } }"; // what the database must answer: the gateway may be there without it
const AGAIN_MS = 2_000;
const AWAY = ["OFFLINE", "UNREACHABLE", "SERVICE_UNAVAILABLE"];
const watchers = new Set();
let seenAt = Date.now();
let problem = null;

/** Tells of every change: `{ problem, seenAt }`; problem is null while the server answers. */
export function onReach(callback) {
  watchers.add(callback);
}

export async function ask(query, variables) {
  try {
    const data = await graphql(query, variables);
    reached(null);
    return data;
  } catch (error) {
    reached(isAway(error) ? error.message : null);
    throw error;
  }
}

/** What the broker must answer. While the rest of the server is there, that it is away is no reason
 * to say that the server is. */
export async function askBroker(query, variables) {
  const [answer] = await Promise.all([graphql(query, variables).catch((error) => error), ask(STILL)]);
  if (!(answer instanceof Error)) return answer;
  throw isAway(answer) ? new ApiError(BROKER_AWAY, {}) : answer;
}

/** Whether the page asks again by itself. */
export function isAway(error) {
  return AWAY.includes(error.code);
}

/** Where in a form an error belongs: `input.audience.locales[1]` is about `locales`. */
export function fieldOf(error) {
  return (error.field ?? "").replace(/^input\.(audience\.)?/, "").replace(/\[\d+\]/g, "");
}

function reached(trouble) {
  if (!trouble) seenAt = Date.now();
  const changed = trouble !== problem;
  const began = trouble && !problem;
  problem = trouble;
  if (changed) for (const watcher of watchers) watcher({ problem, seenAt });
  if (began) lookAgain();
}

async function lookAgain() {
  while (problem) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    if (!load()) reached(null);
    else if (!document.hidden) await ask(STILL).catch(() => {});
  }
}
