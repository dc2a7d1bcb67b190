// Apollo Client: queries and mutations over HTTP, subscriptions over graphql-ws.
import { ApolloClient, gql, HttpLink, InMemoryCache, split } from "@apollo/client/core/index.js";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions/index.js";
import { getMainDefinition } from "@apollo/client/utilities/index.js";
import { createClient } from "graphql-ws";
import {
  headers, MUTATION, patience, QUERY, say, SILENCE, socketUrl, SUBSCRIPTION, url, webSocketImpl,
} from "./common.mjs";

const sockets = createClient({ url: socketUrl, webSocketImpl, connectionParams: headers, ...patience });
sockets.on("connected", (_, __, wasRetry) => wasRetry && say("reconnected"));
const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: split(
    ({ query }) => getMainDefinition(query).operation === "subscription",
    new GraphQLWsLink(sockets),
    new HttpLink({ uri: url, headers }),
  ),
});

say("query", (await client.query({ query: gql(QUERY), variables: { first: 5 } })).data);
say("mutation", (await client.mutate({ mutation: gql(MUTATION), variables: SILENCE })).data);
client.subscribe({ query: gql(SUBSCRIPTION) }).subscribe({
  next: (result) => say("added", result.data),
  error: (error) => say("error", String(error)),
});
say("subscribed");
