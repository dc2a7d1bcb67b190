const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", Infinity], // now
] as const;
const WEEK = 7 * 86_400;
const MONDAY = Date.UTC(2024, 0, 1);
const DAY = 86_400_000;

const midnight = (at: number) => new Date(at).setHours(0, 0, 0, 0);

export type Times = ReturnType<typeof timesIn>;

/** Times in one language and in the user's own zone; milliseconds since 1970 are given.
 *
 * `language`: a BCP 47 tag; if it is none, the browser's own language. */
export function timesIn(language: string) {
  const [tag] = Intl.DateTimeFormat.supportedLocalesOf(language.match(/^[\w-]+$/) ? language : []);
  const format = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat(tag, options);
  const relative = new Intl.RelativeTimeFormat(tag, { numeric: "auto", style: "short" });
  const date = format({ dateStyle: "medium" });
  const exact = format({ dateStyle: "full", timeStyle: "short" });
  const weekday = format({ weekday: "short", timeZone: "UTC" });
  return {
    /** "5 min. ago", "yesterday" after 24 hours; after a week the date. */
    short(at: number): string {
      const seconds = (Date.now() - at) / 1000;
      if (seconds > WEEK) return date.format(at);
      const [unit, length] = UNITS.find(([, length]) => seconds >= length) ?? UNITS[3];
      const days = Math.round((midnight(Date.now()) - midnight(at)) / DAY);
      return relative.format(0 - (unit === "day" ? days : Math.floor(seconds / length)), unit);
    },
    exact: (at: number) => exact.format(at),
    /** `number`: 0 is Monday. */
    weekday: (number: number) => weekday.format(MONDAY + number * DAY),
  };
}
