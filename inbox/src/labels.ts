/** All that the inbox says. A shop hands over its own words as the property `labels`; what it
 * leaves out stays English. `{n}`, `{title}` and the like are filled in. */
export const ENGLISH = {
  title: "Notifications",
  titleUnread: "Notifications, {n} unread",
  UNREAD: "Unread",
  markAll: "Mark all as read",
  settings: "Settings",
  back: "Back",
  close: "Close",
  ALL: "All",
  ORDER_UPDATE: "Orders",
  PROMOTION: "Offers",
  RECOMMENDATION: "For you",
  archive: "Archive",
  archived: "Archived.",
  undo: "Undo",
  why: "Why did I get this?",
  whyUnknown: "That is no longer known.",
  loading: "Loading…",
  empty: "Nothing here yet.",
  emptyUnread: "You have read everything.",
  full: "Only the newest {n} are shown here.",
  away: "No connection. Trying again…",
  failed: "That didn't work.",
  retry: "Try again",
  signIn: "Please sign in",
  arrived: "New: {title}",
  arrivedMany: "{n} new notifications",
  channels: "What reaches you, and how",
  IN_APP: "Here",
  EMAIL: "Email",
  WEB_PUSH: "Push",
  WEBHOOK: "Webhook",
  on: "On",
  locked: "What belongs to your orders is always on.",
  quietHours: "Quiet hours",
  start: "From",
  end: "Until",
  quietZone: "On the clocks of {zone}.",
  CONFLICT: "Changed elsewhere meanwhile. Please choose again.",
};

export type Labels = typeof ENGLISH;
export type Words = Record<string, string>;

/** A label by a name that the server gave; one that is new to us is made readable. */
export function named(labels: Labels, name: string): string {
  const readable = name.charAt(0) + name.slice(1).toLowerCase().replaceAll("_", " ");
  return (labels as Words)[name] ?? readable;
}

export function fill(text: string, values: Record<string, unknown>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => `${values[name] ?? whole}`);
}
