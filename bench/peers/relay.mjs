// Hands the rows of the outbox on to RabbitMQ, beside the requests, as Tidings' relay does.
//
// Up to 500 at once, in the order of writing, persistent and confirmed; only then are they deleted.
// Alone on its outbox: there is no claim on rows, which several relays would need.

import amqp from "amqplib";

const BATCH = 500;
const POLL_MILLISECONDS = 500;
const LIVE = "tidings.live"; // notification.changed is a live event, routed by its user's id

/** Starts it. Answers `wake`, to be called when rows were written, and `stop`. */
export async function startRelay(url, outbox) {
  const connection = await amqp.connect(url, { noDelay: true });
  connection.on("error", die);
  const channel = await connection.createConfirmChannel();
  channel.on("error", die);
  await channel.assertExchange(LIVE, "topic", { durable: true });
  let running = true;
  let wake = () => {};

  async function handOn() {
    const rows = await outbox.find().sort({ written: 1 }).limit(BATCH).toArray();
    for (const row of rows)
      channel.publish(LIVE, row.subject, row.event.buffer, {
        persistent: true,
        contentType: "application/cloudevents+json",
      });
    await channel.waitForConfirms();
    if (rows.length) await outbox.deleteMany({ _id: { $in: rows.map((row) => row._id) } });
    return rows.length;
  }

  async function run() {
    while (running) {
      const written = new Promise((resolve) => {
        const timer = setTimeout(resolve, POLL_MILLISECONDS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      if (!(await handOn())) await written;
    }
  }

  const ended = run();
  ended.catch(die);
  return {
    wake: () => wake(),
    stop: async () => {
      running = false;
      wake();
      await ended;
      await connection.close();
    },
  };
}

function die(error) {
  console.error(error);
  process.exit(1);
}
