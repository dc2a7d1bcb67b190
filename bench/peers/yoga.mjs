// GraphQL Yoga on Node's HTTP server with MongoDB's driver: the notifications of Tidings, as a shop
// would serve them with it.
//
// Tuned: parsed and validated documents are kept and errors are masked (as by default); GraphiQL, its
// landing page, CORS and uploads are off. Limits: GraphQL Armor's, and Yoga's on bodies.

import http from "node:http";
import { EnvelopArmorPlugin } from "@escape.tech/graphql-armor";
import { createSchema, createYoga } from "graphql-yoga";
import {
  LIMITS,
  MAX_REQUEST_BYTES,
  contextOf,
  disconnect,
  onTold,
  outbox,
  resolvers,
  typeDefs,
} from "./notifications.mjs";
import { close, listen, ready, setting } from "./process.mjs";
import { startRelay } from "./relay.mjs";

const yoga = createYoga({
  schema: createSchema({ typeDefs, resolvers }),
  context: ({ request }) => contextOf(request.headers.get("authorization")),
  plugins: [EnvelopArmorPlugin(LIMITS)],
  maxRequestBodySize: MAX_REQUEST_BYTES,
  graphiql: false,
  landingPage: false,
  cors: false,
  multipart: false,
});

const relay = process.env.RABBITMQ_URL && (await startRelay(process.env.RABBITMQ_URL, outbox));
if (relay) onTold(relay.wake);

const server = http.createServer(yoga);
await listen(server, Number(setting("PORT")));
ready(
  () => close(server),
  async () => relay && relay.stop(),
  disconnect,
);
