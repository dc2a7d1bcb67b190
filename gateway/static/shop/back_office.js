// What a shop's back office may do. A real one has an API key; here the demo's admin, whose password
// is public, is logged in beside the customer, for these calls only.

import { ask } from "/static/shared/api.js";
import { accounts } from "./configuration.js";

const LOGIN = "mutation Login($input: LoginInput!) { login(input: $input) { accessToken } }";
let accessToken = null;

export const admin = accounts.find(({ role }) => role === "ADMIN");

/** The answer's data. Throws ApiError. */
export async function asAdmin(query, variables) {
  if (accessToken) {
    try {
      return await ask(query, variables, accessToken);
    } catch (error) {
      if (error.code !== "UNAUTHENTICATED") throw error; // else the session is over: a new one
    }
  }
  const { email, password } = admin;
  ({ accessToken } = (await ask(LOGIN, { input: { email, password } })).login);
  return ask(query, variables, accessToken);
}
