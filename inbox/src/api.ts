/** What the inbox asks of Tidings: `schema.graphql` has the words. */

const NODE = "id type title body content sentAt read archived snoozedUntil revision";
const EDGE = `{cursor node{${NODE}}}`;
const PREFERENCES = `{version timezone types{type enabled channels{channel enabled locked}}
quietHours{channel action windows{days start end}}}`;

export const PAGE = `query($first:Int,$after:String,$unreadOnly:Boolean!,$types:[NotificationType!])
{notifications(first:$first,after:$after,unreadOnly:$unreadOnly,types:$types)
{edges${EDGE}pageInfo{hasNextPage}}}`;
export const ADDED = `subscription($after:String){notificationAdded(after:$after)${EDGE}}`;
export const CHANGED = `subscription{notificationChanged{kind notification{
id sentAt read archived snoozedUntil}}}`;
export const UNREAD = "subscription{unreadCount}";
export const READ = `mutation($id:ID!,$revision:Int){
markNotificationRead(id:$id,revision:$revision){id}}`;
export const READ_ALL = "mutation($upTo:String){markAllNotificationsRead(upTo:$upTo){marked}}";
export const ARCHIVE = `mutation($id:ID!,$archived:Boolean!,$revision:Int){
archiveNotification(id:$id,archived:$archived,revision:$revision){id}}`;
export const EXPLAIN = "query($id:ID!){explain(notificationId:$id){steps{words spoke}}}";
export const CHOICES = `{preferences${PREFERENCES}}`;
export const CHOOSE = `mutation($input:PreferencesInput!){
updatePreferences(input:$input)${PREFERENCES}}`;

export interface Notification {
  id: string;
  type: string;
  title: string;
  body: string;
  content: unknown;
  sentAt: string;
  read: boolean;
  archived: boolean;
  snoozedUntil: string | null;
  revision: number;
}

export interface Edge {
  cursor: string;
  node: Notification;
}

export interface Page {
  notifications: { edges: Edge[]; pageInfo: { hasNextPage: boolean } };
}

export interface Change {
  kind: string;
  notification: Pick<Notification, "id" | "sentAt" | "read" | "archived" | "snoozedUntil">;
}

export interface Step {
  words: string;
  spoke: boolean;
}

export interface TypeChoice {
  type: string;
  enabled: boolean;
  channels: { channel: string; enabled: boolean; locked: boolean }[];
}

export interface Quiet {
  channel: string;
  action?: string;
  /** `days`: there in what is stored; without them it is all. */
  windows: { days?: string[]; start: string; end: string }[];
}

export interface Preferences {
  version: number;
  timezone: string;
  types: TypeChoice[];
  quietHours: Quiet[];
}

/** What the server refused, in words for the user. `extensions.code`: as docs/security.md has it. */
export interface Refusal {
  message: string;
  extensions?: Record<string, unknown>;
}

/** Where an item leads: `content.url` or `content.href`, and nothing that would run in the page. */
export function linkOf(content: unknown): string | undefined {
  const { url, href: other } = Object(content);
  const href: unknown = url ?? other;
  if (typeof href !== "string") return;
  const link = Object.assign(document.createElement("a"), { href });
  return /^https?:$/.test(link.protocol) ? link.href : undefined;
}
