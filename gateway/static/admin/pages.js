// Lists that are longer than a page: older ones come on request.

import { button, h } from "./dom.js";
import { doing, filled } from "./states.js";

let made = 0;

/** `get(after)` answers a connection; `show(nodes)` all that is wanted so far, of one `question`.
 * Answers how to ask again. */
export function pages(place, signal, get, show, question = () => "") {
  let wanted = 1;
  let asked = question();

  async function all() {
    if (asked !== question()) wanted = 1;
    asked = question();
    const nodes = [];
    let pageInfo = { hasNextPage: true, endCursor: null };
    for (let got = 0; got < wanted && pageInfo.hasNextPage; got++) {
      const page = await get(pageInfo.endCursor);
      nodes.push(...page.edges.map(({ node }) => node));
      pageInfo = page.pageInfo;
    }
    return { nodes, hasMore: pageInfo.hasNextPage };
  }

  const more = () => (wanted++, again());
  const onMore = (event) => doing(event.target, more);
  const older = h("p", {}, button("Show older ones", onMore, { id: `older-${++made}` }));
  const again = filled(
    place,
    signal,
    all,
    ({ nodes, hasMore }) => [show(nodes), hasMore ? older : []],
    question,
  );
  return again;
}
