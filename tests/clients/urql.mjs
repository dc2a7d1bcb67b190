// urql: queries and mutations over HTTP, subscriptions over graphql-ws.
import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { createClient } from "graphql-ws";
import {
  headers, MUTATION, patience, QUERY, say, SILENCE, socketUrl, SUBSCRIPTION, url, webSocketImpl,
} from "./common.mjs";

const sockets = createClient({ url: socketUrl, webSocketImpl, connectionParams: headers, ...patience });
sockets.on("connected", (_, __, wasRetry) => wasRetry && say("reconnected"));
const client = new Client({
  url,
  fetchOptions: { headers },
  preferGetMethod: false,
  exchanges: [
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: ({ query, variables }) => ({
        subscribe: (sink) => ({ unsubscribe: sockets.subscribe({ query, variables }, sink) }),
      }),
    }),
  ],
});

const found = await client.query(QUERY, { first: 5 }).toPromise();
say("query", found.data ?? String(found.error));
const changed = await client.mutation(MUTATION, SILENCE).toPromise();
say("mutation", changed.data ?? String(changed.error));
client.subscription(SUBSCRIPTION, {}).subscribe((result) =>
  say("added", result.data ?? String(result.error)));
say("subscribed");
