import { html, nothing } from "lit/html.js";

const drawn = (path: string) =>
  html`<svg viewBox="0 0 24 24" aria-hidden="true"><path d=${path} /></svg>`;

export const BELL = drawn("M6 16v-5a6 6 0 0 1 12 0v5l2 2H4zm4 5h4");
export const CHECK = drawn("m2 13 4 4L16 7m-4 9 1 1L22 7");
export const GEAR = drawn("M4 8h8m6 0h2M4 16h2m6 0h8M12 8a3 3 0 1 0 6 0 3 3 0 1 0-6 0M6 16a3 3 0 1 0 6 0 3 3 0 1 0-6 0");
export const BACK = drawn("m14 6-6 6 6 6");
export const CLOSE = drawn("m6 6 12 12M18 6 6 18");
export const ARCHIVE = drawn("M4 9v11h16V9M3 4h18v5H3zm6 9h6");
export const WHY = drawn("M9 9a3 3 0 1 1 3 4v1m0 3h.01M3 12a9 9 0 1 0 18 0 9 9 0 1 0-18 0");

const OF_TYPES: Record<string, unknown> = {
  ORDER_UPDATE: drawn("M3 8v8l9 5 9-5V8l-9-5zm0 0 9 5 9-5m-9 5v8"),
  PROMOTION: drawn("M3 3h9l9 9-9 9-9-9zm5 5h.01"),
  RECOMMENDATION: drawn("m12 3 3 6 6 1-4 5 1 6-6-3-6 3 1-6-4-5 6-1z"),
};
export const iconOf = (type: string) => OF_TYPES[type] ?? BELL;

/** A button that is only an icon. `expanded`: of what it opens, if it opens something. */
export function iconButton(
  name: string,
  label: string,
  icon: unknown,
  act: (event: Event) => void,
  expanded?: boolean,
) {
  return html`<button
    part="button icon-button ${name}"
    title=${label}
    aria-label=${label}
    aria-expanded=${expanded ?? nothing}
    @click=${act}
  >
    ${icon}
  </button>`;
}
