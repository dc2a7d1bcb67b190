// Who is signed in, in this window: two windows may be two customers.
//
// A window that was duplicated, or opened with rel="opener", has a copy of the session. A refresh
// token works once, so of such windows one renews at a time, and tells the others.

import { ApiError, ask } from "./api.js";

const KEY = "tidings.session";
const RENEW_BEFORE = 60_000; // milliseconds before the access token ends
const HEARD_AFTER = 200; // milliseconds until copies of this window surely know a new session
const ENDED = "Your session has ended. Please sign in again.";
const PAYLOAD = "accessToken refreshToken expiresAt user { id name role }";

const listeners = new Set();
const copies = new BroadcastChannel(KEY);
let renewing = null;

copies.onmessage = ({ data: { former, session, why } }) => {
  if (load()?.refreshToken === former) keep(session, why);
};

/** {accessToken, refreshToken, expiresAt, user: {id, name, role}}; null: nobody is signed in. */
export function load() {
  try {
    const session = JSON.parse(sessionStorage.getItem(KEY));
    return session?.accessToken && session.user ? session : null;
  } catch {
    return null;
  }
}

/** `callback(session, why)` is called after each change; `why` tells people why a session ended.
    Returns what stops that. */
export function onChange(callback) {
  listeners.add(callback);
  return () => listeners.delete(callback);
}

/** Returns the session. Throws ApiError, as the others do. */
export async function signIn(email, password) {
  const { login } = await ask(
    `mutation Login($input: LoginInput!) { login(input: $input) { ${PAYLOAD} } }`,
    { input: { email, password } },
  );
  return keep(login);
}

/** `input`: a RegisterInput. An error's `field` is a path in it: input.email. */
export async function register(input) {
  const { register: registered } = await ask(
    `mutation Register($input: RegisterInput!) { register(input: $input) { ${PAYLOAD} } }`,
    { input },
  );
  return keep(registered);
}

/** Here at once; the server hears of it if it can be reached. */
export async function signOut() {
  const session = load();
  replace(session, null);
  if (session) await logout(session).catch(() => {});
}

/** An access token that has ended can't log out, so that a new one is asked for. */
async function logout({ accessToken, refreshToken }) {
  const withToken = (token) => ask("mutation Logout { logout }", {}, token);
  try {
    await withToken(accessToken);
  } catch (error) {
    if (error.code !== "UNAUTHENTICATED") throw error;
    await withToken((await refreshed(refreshToken)).accessToken);
  }
}

/** An access token that is good for a while. */
export async function token() {
  return (await current()).accessToken;
}

/** The answer's data, asked for as whoever is signed in. */
export async function graphql(query, variables) {
  const session = await current();
  try {
    return await ask(query, variables, session.accessToken);
  } catch (error) {
    if (error.code !== "UNAUTHENTICATED") throw error;
  }
  // Refused, so nothing was done. This computer's clock may be wrong, or the session over.
  return ask(query, variables, (await renew(session)).accessToken);
}

async function current() {
  const session = load();
  if (!session) throw signedOut();
  const isGood = Date.parse(session.expiresAt) - Date.now() > RENEW_BEFORE;
  return isGood ? session : renew(session);
}

function renew(former) {
  renewing ??= new Promise((resolve, reject) => {
    inTurn(KEY, async () => {
      await renewNow(former).then(resolve, reject);
      await new Promise((heard) => setTimeout(heard, HEARD_AFTER));
    });
  }).finally(() => (renewing = null));
  return renewing;
}

/** One window of this browser at a time, where it has locks: over plain http it has none. */
export function inTurn(name, work) {
  return navigator.locks ? navigator.locks.request(name, work) : work();
}

async function renewNow({ accessToken, user }) {
  const session = load();
  if (session?.user.id !== user.id) throw signedOut();
  if (session.accessToken !== accessToken) return session; // another window was faster
  try {
    const renewed = await refreshed(session.refreshToken);
    if (!replace(session, renewed)) throw signedOut();
    return renewed;
  } catch (error) {
    if (error.code === "UNAUTHENTICATED") replace(session, null, ENDED);
    throw error;
  }
}

async function refreshed(token) {
  const { refreshSession } = await ask(
    `mutation Refresh($token: String!) { refreshSession(refreshToken: $token) { ${PAYLOAD} } }`,
    { token },
  );
  return refreshSession;
}

/** Here and in copies of this window; false: somebody else has signed in or out meanwhile. */
function replace(former, session, why = "") {
  const isThere = Boolean(former) && load()?.refreshToken === former.refreshToken;
  if (isThere) {
    copies.postMessage({ former: former.refreshToken, session, why });
    keep(session, why);
  }
  return isThere;
}

function keep(session, why = "") {
  if (session) sessionStorage.setItem(KEY, JSON.stringify(session));
  else sessionStorage.removeItem(KEY);
  for (const callback of listeners) callback(session, why);
  return session;
}

function signedOut() {
  return new ApiError(ENDED, { code: "UNAUTHENTICATED" });
}
