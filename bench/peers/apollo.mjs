// Apollo Server on Express with MongoDB's driver: the notifications of Tidings, as a shop would serve
// them with it.
//
// Tuned: parsed and validated documents are kept (as by default), the plugin that computes cache
// hints for each field is off, and so is reporting. Limits: GraphQL Armor's, and Express' on bodies.

import http from "node:http";
import { ApolloServer } from "@apollo/server";
import { ApolloServerPluginCacheControlDisabled } from "@apollo/server/plugin/disabled";
import { expressMiddleware } from "@as-integrations/express5";
import { ApolloArmor } from "@escape.tech/graphql-armor";
import express from "express";
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

const armor = new ApolloArmor(LIMITS).protect();
const apollo = new ApolloServer({
  typeDefs,
  resolvers,
  ...armor,
  plugins: [...armor.plugins, ApolloServerPluginCacheControlDisabled()],
  introspection: false,
  stopOnTerminationSignals: false,
});
await apollo.start();

const app = express();
app.disable("x-powered-by");
app.disable("etag");
app.use(
  "/graphql",
  express.json({ limit: MAX_REQUEST_BYTES }),
  expressMiddleware(apollo, {
    context: async ({ req }) => contextOf(req.headers.authorization),
  }),
);

const relay = process.env.RABBITMQ_URL && (await startRelay(process.env.RABBITMQ_URL, outbox));
if (relay) onTold(relay.wake);

const server = http.createServer(app);
await listen(server, Number(setting("PORT")));
ready(
  () => close(server),
  () => apollo.stop(),
  async () => relay && relay.stop(),
  disconnect,
);
