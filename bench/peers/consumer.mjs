// A consumer of order events as a shop's team would write it, on Express, Mongoose and amqplib.
//
// One event after the other becomes a notification: its user is looked up, it is skipped where they
// refused it, it is stored with a majority's word, and only then acknowledged. The unique index
// makes sure that an event counts once. It reads Tidings' `users` and writes `peer_notifications`.
// Tuned: a hundred events at once, lean reads of the fields that are needed, indexes made at the
// start. A user who switched the type or its app channel off gets nothing; in Tidings order updates
// can't be switched off in the app, so for equal work no user of the bench has.

import http from "node:http";
import amqp from "amqplib";
import express from "express";
import mongoose from "mongoose";
import { close, listen, ready, setting } from "./process.mjs";

const PREFETCH = 100; // as many as the driver has connections
const RETRY_MILLISECONDS = 1000;
const DUPLICATE = 11000;

const TEXTS = {
  placed: ["received", "Thank you! We have your order and check it now."],
  paid: ["is paid", "Your payment arrived. We start packing."],
  packed: ["is packed", "Your parcel waits for the carrier."],
  shipped: ["is on its way", "Your parcel has left our warehouse."],
  delivered: ["was delivered", "Enjoy! Something wrong? We take it back."],
  cancelled: ["was cancelled", "Nothing will be charged."],
  refunded: ["was refunded", "Your money is on its way back to you."],
};

const User = mongoose.model(
  "User",
  new mongoose.Schema(
    {
      name: String,
      locale: String,
      choices: Object, // type -> { enabled, channels: { channel: whether it is on } }
      disabled_at: Date,
    },
    { collection: "users", autoIndex: false, autoCreate: false },
  ),
);

const schema = new mongoose.Schema(
  {
    userId: { type: String, required: true },
    event: { type: String, required: true }, // the event's source and id
    type: { type: String, required: true, enum: ["order_update", "promotion", "recommendation"] },
    title: { type: String, required: true, maxlength: 500 },
    body: { type: String, required: true, maxlength: 5000 },
    content: mongoose.Schema.Types.Mixed,
    sentAt: { type: Date, required: true },
    read: { type: Boolean, default: false },
    readAt: Date,
    seen: { type: Boolean, default: false },
    archived: { type: Boolean, default: false },
  },
  { collection: "peer_notifications", writeConcern: { w: "majority" }, versionKey: false },
);
schema.index({ userId: 1, event: 1 }, { unique: true });
schema.index({ userId: 1, sentAt: -1 });
const Notification = mongoose.model("Notification", schema);

let stored = 0;

/** Store the notification that an order event is worth; again changes nothing. */
async function onOrderStatusChanged(event) {
  const { orderId, userId, status, version, details } = event.data;
  const user = await User.findById(userId, "name locale choices disabled_at").lean();
  if (!user || user.disabled_at || refuses(user, "order_update")) return;
  const [verb, body] = TEXTS[status.toLowerCase()] ?? [
    "has news",
    `Its status is now: ${status}.`,
  ];
  try {
    await Notification.create({
      userId,
      event: `${event.source} ${event.id}`,
      type: "order_update",
      title: `Order ${orderId} ${verb}`,
      body,
      content: { orderId, status, version, details },
      sentAt: new Date(),
    });
    stored += 1;
  } catch (error) {
    if (error.code !== DUPLICATE) throw error;
  }
}

function refuses(user, type) {
  const choice = user.choices?.[type];
  return choice?.enabled === false || choice?.channels?.in_app === false;
}

/** The event in a message. Throws for what is no CloudEvent of this type with its data. */
function parse(message) {
  const event = JSON.parse(message.content);
  if (event.specversion !== "1.0" || event.type !== "order.status_changed")
    throw new TypeError(`not an order's status: ${event.type}`);
  const given = [event.id, event.source, event.data?.orderId, event.data?.status];
  if (!given.every((value) => typeof value === "string" && value))
    throw new TypeError("a field of the event is missing");
  if (!mongoose.isValidObjectId(event.data.userId)) throw new TypeError("userId is not an id");
  return event;
}

async function onMessage(channel, message) {
  let event;
  try {
    event = parse(message);
  } catch (error) {
    console.error(`dead letter: ${error.message}`);
    channel.nack(message, false, false); // the queue's dead-letter exchange has it
    return;
  }
  try {
    await onOrderStatusChanged(event);
    channel.ack(message);
  } catch (error) {
    console.error(error);
    setTimeout(() => channel.nack(message), RETRY_MILLISECONDS); // back to the queue
  }
}

function die(error) {
  console.error(error);
  process.exit(1);
}

await mongoose.connect(setting("MONGODB_URL"), {
  dbName: setting("MONGODB_DATABASE"),
  autoIndex: true,
});
await Notification.init(); // its indexes are there

const broker = await amqp.connect(setting("RABBITMQ_URL"), { noDelay: true });
broker.on("error", die);
const channel = await broker.createChannel();
channel.on("error", die);
await channel.prefetch(PREFETCH);

const working = new Set();
const { consumerTag } = await channel.consume(setting("QUEUE"), (message) => {
  if (message === null) return die(new Error("the queue is gone"));
  const work = onMessage(channel, message).finally(() => working.delete(work));
  working.add(work);
});

const app = express();
app.disable("x-powered-by");
app.get("/health", (_, response) => {
  const ok = mongoose.connection.readyState === mongoose.ConnectionStates.connected;
  response.status(ok ? 200 : 503).json({ ok, stored });
});

const server = http.createServer(app);
await listen(server, Number(setting("PORT")));
ready(
  () => channel.cancel(consumerTag),
  () => Promise.all(working),
  () => broker.close(),
  () => close(server),
  () => mongoose.disconnect(),
);
