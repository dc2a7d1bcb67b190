// graphql-ws: everything over the websocket.
import { createClient } from "graphql-ws";
import {
  headers, MUTATION, patience, QUERY, say, SILENCE, socketUrl, SUBSCRIPTION, webSocketImpl,
} from "./common.mjs";

const client = createClient({ url: socketUrl, webSocketImpl, connectionParams: headers, ...patience });
client.on("connected", (_, __, wasRetry) => wasRetry && say("reconnected"));

async function once(query, variables) {
  for await (const result of client.iterate({ query, variables })) return result.data;
}

say("query", await once(QUERY, { first: 5 }));
say("mutation", await once(MUTATION, SILENCE));
const added = client.iterate({ query: SUBSCRIPTION });
say("subscribed");
for await (const result of added) say("added", result.data ?? result.errors);
