// Apollo Server with MongoDB's driver: the notifications of Tidings, as a shop would serve them with
// it. Its standalone HTTP server takes less time for a request than its Express integration does.
//
// Tuned: parsed and validated documents are kept (as by default), the plugin that computes cache
// hints for each field is off, and so is reporting. Limits: GraphQL Armor's; of bodies, Tidings'.

import { ApolloServer } from "@apollo/server";
import { ApolloServerPluginCacheControlDisabled } from "@apollo/server/plugin/disabled";
import { startStandaloneServer } from "@apollo/server/standalone";
import { ApolloArmor } from "@escape.tech/graphql-armor";
import { GraphQLError } from "graphql";
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
import { ready, setting } from "./process.mjs";
import { startRelay } from "./relay.mjs";

const armor = new ApolloArmor(LIMITS).protect();
const apollo = new ApolloServer({
  typeDefs,
  resolvers,
  ...armor,
  plugins: [...armor.plugins, ApolloServerPluginCacheControlDisabled()],
  introspection: false,
  stopOnTerminationSignals: false,
  stopGracePeriodMillis: 2000,
});

/** The standalone server's own limit of bodies is 50 MB, and fixed. */
async function context({ req }) {
  if (Number(req.headers["content-length"]) > MAX_REQUEST_BYTES) {
    const extensions = { code: "BAD_USER_INPUT", http: { status: 413 } };
    throw new GraphQLError(`The body has more than ${MAX_REQUEST_BYTES} bytes.`, { extensions });
  }
  return contextOf(req.headers.authorization);
}

const relay = process.env.RABBITMQ_URL && (await startRelay(process.env.RABBITMQ_URL, outbox));
if (relay) onTold(relay.wake);

await startStandaloneServer(apollo, {
  context,
  listen: { host: "127.0.0.1", port: Number(setting("PORT")) },
});
ready(
  () => apollo.stop(),
  async () => relay && relay.stop(),
  disconnect,
);
