// GraphQL over HTTP at this page's own server, and what went wrong, in words.

const ADDRESS = "/graphql";
const PATIENCE = 15_000; // milliseconds

/** `code`: of the server's error, or OFFLINE or UNREACHABLE. `field`: the input at fault.
    `retryAfter`: seconds. */
export class ApiError extends Error {
  constructor(message, { code, field = null, retryAfter = null } = {}) {
    super(message);
    this.code = code;
    this.field = field;
    this.retryAfter = retryAfter;
  }
}

/** The answer's data. Throws ApiError with the first error of the answer. */
export async function ask(query, variables = {}, accessToken = null) {
  const response = await send(JSON.stringify({ query, variables }), accessToken);
  const answer = await response.json().catch(() => null);
  if (answer?.errors?.length) {
    const [{ message, extensions }] = answer.errors;
    throw new ApiError(message, extensions);
  }
  if (!answer?.data) {
    throw new ApiError(`The server answered ${response.status}, and nothing that can be read.`, {
      code: response.status === 503 ? "SERVICE_UNAVAILABLE" : "UNREACHABLE",
    });
  }
  return answer.data;
}

async function send(body, accessToken) {
  const headers = { accept: "application/json", "content-type": "application/json" };
  if (accessToken) headers.authorization = `Bearer ${accessToken}`;
  const signal = AbortSignal.timeout(PATIENCE);
  try {
    return await fetch(ADDRESS, { method: "POST", headers, body, signal });
  } catch {
    if (navigator.onLine)
      throw new ApiError("The server does not answer.", { code: "UNREACHABLE" });
    throw new ApiError("You are offline.", { code: "OFFLINE" });
  }
}

/** What a person can be told of an error, and what they can do. */
export function inWords(error) {
  switch (error.code) {
    case "OFFLINE":
      return "You are offline. Try again when the connection is back.";
    case "UNREACHABLE":
      return "The server can’t be reached. Is it still running? Try again in a moment.";
    case "SERVICE_UNAVAILABLE":
      return "The server can’t do this just now. Try again in a moment.";
    case "RATE_LIMITED":
      return error.retryAfter
        ? `That was too often. Try again in ${inTime(error.retryAfter)}.`
        : "That was too often. Try again in a moment.";
    default:
      return error instanceof ApiError
        ? error.message
        : "Something went wrong here. Reload the page.";
  }
}

function inTime(seconds) {
  if (seconds < 90) return seconds === 1 ? "a second" : `${seconds} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}
