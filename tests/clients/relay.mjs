// Relay: queries and mutations over HTTP, subscriptions over graphql-ws.
import { createClient } from "graphql-ws";
import relay from "relay-runtime";
import {
  headers, patience, say, SILENCE, socketUrl, url, webSocketImpl,
} from "./common.mjs";
import added from "./relay/__generated__/operationsAddedSubscription.graphql.js";
import inbox from "./relay/__generated__/operationsInboxQuery.graphql.js";
import silence from "./relay/__generated__/operationsSilenceMutation.graphql.js";

const { commitMutation, Environment, fetchQuery, Network, Observable, RecordSource, Store } = relay;

const sockets = createClient({ url: socketUrl, webSocketImpl, connectionParams: headers, ...patience });
sockets.on("connected", (_, __, wasRetry) => wasRetry && say("reconnected"));

async function fetchFn({ text }, variables) {
  const response = await fetch(url, {
    method: "POST",
    headers: {
      ...headers,
      accept: "application/graphql-response+json; charset=utf-8, application/json; charset=utf-8",
      "content-type": "application/json",
    },
    body: JSON.stringify({ query: text, variables }),
  });
  return response.json();
}

function subscribeFn({ text }, variables) {
  return Observable.create((sink) => sockets.subscribe({ query: text, variables }, sink));
}

const environment = new Environment({
  network: Network.create(fetchFn, subscribeFn),
  store: new Store(new RecordSource()),
});

say("query", await fetchQuery(environment, inbox, { first: 5 }).toPromise());
say("mutation", await new Promise((onCompleted, onError) =>
  commitMutation(environment, { mutation: silence, variables: SILENCE, onCompleted, onError })));
relay.requestSubscription(environment, {
  subscription: added,
  variables: {},
  onNext: (data) => say("added", data),
  onError: (error) => say("error", String(error)),
});
say("subscribed");
