// Lists that are longer than a page: older ones come on request.

import { inWords } from "../shared/api.js";
import { button, h } from "./dom.js";
import { filled, note } from "./states.js";

/** `get(after)` answers a connection; `show(nodes)` all that was got so far. Answers how to begin
 * again. */
export function pages(place, signal, get, show) {
  const begin = () => get(null).then((page) => ({ ...page, nodes: nodesOf(page) }));

  function all({ nodes, pageInfo }) {
    if (!pageInfo.hasNextPage) return [show(nodes)];
    const more = button("Show older ones", async () => {
      more.disabled = true;
      try {
        const next = await get(pageInfo.endCursor);
        place.replaceChildren(
          ...all({ nodes: [...nodes, ...nodesOf(next)], pageInfo: next.pageInfo }),
        );
      } catch (error) {
        note(inWords(error));
        more.disabled = false;
      }
    });
    return [show(nodes), h("p", {}, more)];
  }

  return filled(place, signal, begin, all);
}

function nodesOf({ edges }) {
  return edges.map((edge) => edge.node);
}
