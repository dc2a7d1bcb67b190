// The peer of the row `live`: graphql-ws on ws, as its manual sets it up.
//
// The same tokens, sessions, schema and messages of the broker as Tidings has; each user hears of
// their own notifications alone. There is no resuming: its cursors are ids. Tuned: no compression,
// no acknowledgements to the broker.

import { randomUUID } from "node:crypto";
import { EventEmitter, on } from "node:events";
import { createServer } from "node:http";
import amqp from "amqplib";
import { useServer } from "graphql-ws/use/ws";
import { createSchema } from "graphql-yoga";
import { WebSocketServer } from "ws";
import { contextOf, disconnect, resolvers, typeDefs } from "./notifications.mjs";
import { listen, ready, setting } from "./process.mjs";

const LIVE = "tidings.live";
const EVERYBODY = "everybody"; // the routing key of what is told to many
const told = new EventEmitter().setMaxListeners(0);
const broker = await amqp.connect(setting("RABBITMQ_URL"));
const channel = await broker.createChannel();
const { queue } = await channel.assertQueue(`bench.${randomUUID()}`, { exclusive: true });

await channel.bindQueue(queue, LIVE, EVERYBODY);
await channel.consume(queue, hear, { noAck: true });

/** One message tells one user, or the same to many. */
function hear(message) {
  const { recipients, kind, sentAt, expiresAt, ...data } = JSON.parse(message.content).data;
  const shared = {
    read: false,
    seen: false,
    archived: false,
    revision: 1,
    ...data,
    type: kind,
    sentAt: new Date(sentAt),
    expiresAt: expiresAt && new Date(expiresAt),
  };
  for (const recipient of recipients ?? [data]) {
    told.emit(recipient.userId, { ...shared, ...recipient });
  }
}

async function* added(viewer) {
  const userId = await viewer;
  const events = on(told, userId);
  await channel.bindQueue(queue, LIVE, userId);
  for await (const [node] of events) yield { notificationAdded: { cursor: node.id, node } };
}

const schema = createSchema({
  typeDefs: [
    typeDefs,
    "type Subscription { notificationAdded(after: String = null, types: [NotificationType!] = null): NotificationEdge! }",
  ],
  resolvers: {
    ...resolvers,
    Subscription: { notificationAdded: { subscribe: (_, __, { viewer }) => added(viewer()) } },
  },
});

const server = createServer();
const sockets = new WebSocketServer({ server, path: "/graphql", perMessageDeflate: false });
useServer(
  {
    schema,
    onConnect: async ({ connectionParams, extra }) => {
      extra.context = contextOf(connectionParams?.authorization ?? connectionParams?.Authorization);
      await extra.context.viewer();
    },
    context: ({ extra }) => extra.context,
  },
  sockets,
);

await listen(server, Number(setting("PORT")));
ready(
  () => broker.close(),
  () => disconnect(),
);
