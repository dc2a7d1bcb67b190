// What apollo.mjs and yoga.mjs share: Tidings' schema as far as the bench asks, its data, its tokens.
//
// The same questions to the same collections as Tidings puts, and the same answers. All rows are
// taken for older than Tidings' write window, so that cursors carry nothing of what was seen in it.
// Tuned: the find answers only the fields that are shown; the change and its answer are one command.

import { createHash, randomUUID } from "node:crypto";
import { decode } from "@msgpack/msgpack";
import { createVerifier } from "fast-jwt";
import { GraphQLError, GraphQLScalarType } from "graphql";
import { MongoClient, ObjectId, Timestamp } from "mongodb";
import { setting } from "./process.mjs";

export const MAX_REQUEST_BYTES = 1048576;

/** Of GraphQL Armor: Tidings' limits; of costs its own, since it counts them in another way. */
export const LIMITS = {
  maxDepth: { n: 12 },
  maxAliases: { n: 30 },
  maxTokens: { n: 2000 },
  costLimit: { maxCost: 5000 },
};

export const typeDefs = /* GraphQL */ `
  scalar DateTime
  scalar JSON

  enum NotificationType {
    ORDER_UPDATE
    PROMOTION
    RECOMMENDATION
  }

  type Notification {
    id: ID!
    userId: ID!
    type: NotificationType!
    title: String!
    body: String!
    content: JSON!
    sentAt: DateTime!
    read: Boolean!
    readAt: DateTime
    seen: Boolean!
    archived: Boolean!
    snoozedUntil: DateTime
    expiresAt: DateTime
    revision: Int!
  }

  type PageInfo {
    hasNextPage: Boolean!
    hasPreviousPage: Boolean!
    startCursor: String
    endCursor: String
  }

  type NotificationEdge {
    cursor: String!
    node: Notification!
  }

  type NotificationConnection {
    edges: [NotificationEdge!]!
    pageInfo: PageInfo!
  }

  type Query {
    notifications(first: Int = null, after: String = null): NotificationConnection!
    unreadCount(types: [NotificationType!] = null): Int!
  }

  type Mutation {
    markNotificationRead(id: ID!, read: Boolean! = true, revision: Int = null): Notification!
  }
`;

const CONNECTIONS = 8; // as Tidings has; 16 or 100 were no faster
const PAGE_SIZE = 20;
const MAX_PAGE_SIZE = 100;
const TYPES = ["order_update", "promotion", "recommendation"];
const EPOCH = new Date(0);
const SHOWN = Object.fromEntries(
  (
    "user_id type title body content sent_at read read_at seen archived snoozed_until expires_at " +
    "revision"
  )
    .split(" ")
    .map((name) => [name, 1]),
);

const client = new MongoClient(setting("MONGODB_URL"), { maxPoolSize: CONNECTIONS });
await client.connect();
const database = client.db(setting("MONGODB_DATABASE"));
const sessions = database.collection("sessions");
const notifications = database.collection("notifications");
export const outbox = database.collection("outbox");

export async function disconnect() {
  await client.close();
}

// Who is asking

const SECRET = setting("JWT_SECRET");
const KEY_ID = createHash("sha256").update(`kid:${SECRET}`).digest("hex").slice(0, 16);
const LEEWAY_SECONDS = 60;
const verify = createVerifier({
  key: SECRET,
  algorithms: ["HS256"],
  allowedIss: "tidings",
  allowedAud: "tidings",
  checkTyp: "at+jwt",
  requiredClaims: ["iss", "aud", "exp", "iat", "sub", "jti", "sid", "role"],
  complete: true,
  cache: 10000,
});

/** One request's context: `viewer()` is the id of who asks, and asks the database once. */
export function contextOf(authorization) {
  let identifying;
  return { viewer: () => (identifying ??= identify(authorization)) };
}

async function identify(authorization) {
  if (!authorization?.startsWith("Bearer "))
    throw refusal("UNAUTHENTICATED", "Log in first: send Authorization: Bearer <accessToken>.");
  const claims = read(authorization.slice(7));
  const open = await sessions.findOne(
    { _id: new ObjectId(claims.sid), expires_at: { $gt: new Date() } },
    { projection: { _id: 1 } },
  );
  if (!open) throw refusal("UNAUTHENTICATED", "The session has ended: log in again.");
  return claims.sub;
}

function read(token) {
  try {
    const { header, payload } = verify(token);
    const tooEarly = payload.iat > Date.now() / 1000 + LEEWAY_SECONDS;
    if (header.kid === KEY_ID && !tooEarly && ObjectId.isValid(payload.sid)) return payload;
  } catch {
    // said below
  }
  throw refusal("UNAUTHENTICATED", "The access token is not valid: log in again.");
}

// Cursors: a msgpack array of milliseconds, id, floor, what was seen (nothing), and exact (true)

/** Written by hand, since its length is always the same. */
function cursorOf(row) {
  const at = BigInt(row.sent_at.getTime());
  const cursor = Buffer.allocUnsafe(35);
  cursor[0] = 0x95;
  cursor[1] = 0xcf;
  cursor.writeBigUInt64BE(at, 2);
  cursor[10] = 0xc4;
  cursor[11] = 12;
  cursor.set(row._id.id, 12);
  cursor[24] = 0xcf;
  cursor.writeBigUInt64BE(at + 1n, 25);
  cursor[33] = 0x90;
  cursor[34] = 0xc3;
  return cursor.toString("base64url");
}

function positionOf(cursor) {
  try {
    const [at, id] = decode(Buffer.from(cursor, "base64url"));
    return { sentAt: new Date(at), id: new ObjectId(id) };
  } catch {
    throw refusal("BAD_USER_INPUT", "This is not a cursor: give one as a page gave it.");
  }
}

// Questions

const alive = (now) => ({ expires_at: { $not: { $lte: now } } });

/** A condition on every field of the index, as Tidings has it. */
const query = (userId, read, types, now) => ({
  user_id: userId,
  archived: { $in: [false] },
  read: { $in: read },
  type: { $in: types },
  ...alive(now),
  snoozed_until: { $not: { $gt: EPOCH } },
});

const olderThan = ({ sentAt, id }) => ({
  sent_at: { $lte: sentAt },
  $nor: [{ sent_at: sentAt, _id: { $gte: id } }],
});

const notOlderThan = ({ sentAt, id }) => ({
  sent_at: { $gte: sentAt },
  $nor: [{ sent_at: sentAt, _id: { $lt: id } }],
});

async function page(userId, size, after) {
  const position = after == null ? null : positionOf(after);
  const all = query(userId, [false, true], TYPES, new Date());
  const [rows, newer] = await Promise.all([
    notifications
      .find(position ? { ...all, ...olderThan(position) } : all, { projection: SHOWN })
      .sort({ sent_at: -1, _id: -1 })
      .limit(size + 1)
      .toArray(),
    position && notifications.findOne({ ...all, ...notOlderThan(position) }, { projection: { _id: 1 } }),
  ]);
  const hasNextPage = rows.length > size;
  if (hasNextPage) rows.pop();
  const edges = rows.map((row) => ({ cursor: cursorOf(row), node: shown(row) }));
  return {
    edges,
    pageInfo: {
      hasNextPage,
      hasPreviousPage: newer != null,
      startCursor: edges.at(0)?.cursor,
      endCursor: edges.at(-1)?.cursor,
    },
  };
}

/** A row as GraphQL shows it; rows of before don't have all fields. */
function shown(row) {
  return {
    id: row._id.toHexString(),
    userId: row.user_id,
    type: row.type,
    title: row.title,
    body: row.body,
    content: row.content,
    sentAt: row.sent_at,
    read: row.read,
    readAt: row.read_at,
    seen: row.seen ?? true,
    archived: row.archived,
    snoozedUntil: row.snoozed_until,
    expiresAt: row.expires_at,
    revision: row.revision ?? 1,
  };
}

// Verbs

let told = () => {};

/** `listener` is called after each transaction that has written to the outbox. */
export function onTold(listener) {
  told = listener;
}

/** In one transaction: the notification, if it is as it is expected to be, and the event of that. */
async function markRead(userId, id, read, revision) {
  if (!ObjectId.isValid(id)) throw notFound();
  const mine = { _id: new ObjectId(id), user_id: userId, ...alive(new Date()) };
  const expected = { ...mine, read: !read };
  if (revision != null) expected.revision = { $in: revision === 1 ? [1, null] : [revision] };
  const row = await client.withSession((session) =>
    session.withTransaction(async () => {
      const now = new Date();
      const becomes = read
        ? { read, read_at: now, seen: true, change: "read", changed_at: now }
        : { read, read_at: null, change: "unread", changed_at: now };
      const changed = await notifications.findOneAndUpdate(
        expected,
        { $set: becomes },
        { session, projection: SHOWN, returnDocument: "after" },
      );
      if (changed) await outbox.insertOne(changedEvent(userId, id, becomes.change, now), { session });
      return changed;
    }),
  );
  if (row) {
    told();
    return shown(row);
  }
  const unchanged = await notifications.findOne(mine, { projection: SHOWN });
  if (!unchanged) throw notFound();
  return shown(unchanged);
}

/** A row of Tidings' outbox. The database stamps `written`. */
function changedEvent(userId, id, kind, now) {
  const event = {
    specversion: "1.0",
    id: randomUUID().replaceAll("-", ""),
    source: "urn:tidings",
    type: "notification.changed",
    subject: userId,
    time: now,
    datacontenttype: "application/json",
    data: { userId, kind, notificationIds: [id] },
  };
  return {
    event: Buffer.from(JSON.stringify(event)),
    subject: userId,
    written: new Timestamp({ t: 0, i: 0 }),
    claimed_until: EPOCH,
  };
}

// GraphQL

export const resolvers = {
  DateTime: new GraphQLScalarType({ name: "DateTime", serialize: isoformat }),
  JSON: new GraphQLScalarType({ name: "JSON" }),
  NotificationType: Object.fromEntries(TYPES.map((type) => [type.toUpperCase(), type])),
  Query: {
    notifications: async (_, { first, after }, context) => {
      const size = first ?? PAGE_SIZE;
      if (size < 0 || size > MAX_PAGE_SIZE)
        throw refusal("BAD_USER_INPUT", `Ask for 0 to ${MAX_PAGE_SIZE} at once.`);
      return page(await context.viewer(), size, after);
    },
    unreadCount: async (_, { types }, context) =>
      notifications.countDocuments(
        query(await context.viewer(), [false], types ?? TYPES, new Date()),
      ),
  },
  Mutation: {
    markNotificationRead: async (_, { id, read, revision }, context) =>
      markRead(await context.viewer(), id, read, revision),
  },
};

/** As Python writes a time in UTC: without a fraction, or with six digits. */
function isoformat(time) {
  const text = time.toISOString();
  return text.endsWith(".000Z") ? `${text.slice(0, 19)}+00:00` : `${text.slice(0, -1)}000+00:00`;
}

function notFound() {
  return refusal("NOT_FOUND", "There is no such notification.");
}

function refusal(code, message) {
  return new GraphQLError(message, { extensions: { code } });
}
