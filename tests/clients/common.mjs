// What each client's script is given, and the lines of JSON by which it tells what it saw.
import WebSocket from "ws";

export const url = process.env.URL;
export const socketUrl = url.replace("http", "ws");
export const headers = { authorization: `Bearer ${process.env.TOKEN}` };
export const webSocketImpl = WebSocket;

// Come back at once and for ever: the tests cut connections.
export const patience = { retryAttempts: Infinity, retryWait: () => sleep(100) };

export const QUERY = `query Inbox($first: Int!) {
  notifications(first: $first) { edges { cursor node { id title } } pageInfo { hasNextPage endCursor } }
}`;
export const MUTATION = `mutation Silence($input: PreferencesInput!) {
  updatePreferences(input: $input) { version }
}`;
export const SUBSCRIPTION = `subscription Added { notificationAdded { cursor node { id title } } }`;
export const SILENCE = { input: { types: [{ type: "PROMOTION", enabled: false }] } };

export function say(step, data) {
  console.log(JSON.stringify({ step, data }));
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
