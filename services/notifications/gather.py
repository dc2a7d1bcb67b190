"""What `recommend` needs to know, read from the database within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, ParamSpec, TypeVar

from services.notifications import recommend
from services.notifications.models import Notification, Product
from services.notifications.recommend import Act, Recommendation
from services.shared.settings import Settings
from services.users.models import Activity, Deed

P = ParamSpec("P")
T = TypeVar("T")

# After six half-lives an act weighs less than two hundredths of what it did.
_MEMORY: Final = 6 * recommend.HALF_LIFE
_OWN_MEMORY: Final = max(_MEMORY, recommend.BOUGHT_LATELY)


class Gatherer:
    def __init__(self, settings: Settings) -> None:
        self._acts = settings.recommendation_acts
        self._neighbours = settings.recommendation_neighbours
        self._turn = asyncio.Lock()

    async def crowd(self, now: datetime) -> Mapping[str, float]:
        """How popular each product is with everybody; the same for all users of a batch."""
        acts = [_act(deed) async for deed in Activity.latest(now - _MEMORY, self._acts)]
        return await self._compute(recommend.popularity_of, acts, now)

    async def recommendations(
        self, user_id: str, crowd: Mapping[str, float], limit: int, now: datetime
    ) -> Sequence[Recommendation]:
        own = [
            _act(deed)
            for deeds in (
                Activity.of_user(user_id, now - _OWN_MEMORY, self._acts),
                Activity.purchases(user_id, now - recommend.BOUGHT_LATELY, self._acts),
            )
            async for deed in deeds
        ]
        touched = {act.product_id for act in own}
        around = Activity.around(
            list(touched), user_id, now - _MEMORY, self._neighbours, self._acts
        )
        others = [_act(deed) async for deed in around]
        products = touched | set(crowd) | {act.product_id for act in others}
        lately = now - recommend.RECOMMENDED_LATELY
        return await self._compute(
            recommend.recommend,
            user_id=user_id,
            history=own,
            others=others,
            catalogue=await Product.known(products),
            popularity=crowd,
            recently_recommended=await Notification.products_recommended(user_id, lately),
            now=now,
            limit=limit,
        )

    async def _compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Off the loop: it takes up to half a second of one core. One at a time."""
        async with self._turn:
            return await asyncio.to_thread(function, *args, **kwargs)


def _act(deed: Deed) -> Act:
    return Act(deed.user_id, deed.product_id, deed.kind.value, deed.at)
