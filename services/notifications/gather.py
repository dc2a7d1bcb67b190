"""What `recommend` needs to know, read from the database within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import pymongo

from services.notifications import recommend
from services.notifications.catalogue import Product
from services.notifications.models import Notification
from services.notifications.recommend import Act, Recommendation
from services.shared.errors import Unavailable
from services.shared.settings import Settings
from services.users.models import Activity, Deed

# After six half-lives an act weighs less than two hundredths of what it did.
_MEMORY: Final = 6 * recommend.HALF_LIFE
_OWN_MEMORY: Final = max(_MEMORY, recommend.BOUGHT_LATELY)


class Gatherer:
    """For one user at a time: each takes some megabytes for a moment, and as much of the loop.

    Raises Unavailable when others are before it for half of MONGODB_TIMEOUT_SECONDS: the database
    may hold them up, and then nobody shall stand in line for it.
    """

    def __init__(self, settings: Settings) -> None:
        self._turns = asyncio.Semaphore(1)
        self._acts = settings.recommendation_acts
        self._neighbours = settings.recommendation_neighbours
        self._seconds = settings.mongodb_timeout_seconds

    async def crowd(self, now: datetime) -> Mapping[str, float]:
        """How popular each product is with everybody; the same for all users of a batch."""
        async with self._turn():
            acts = await self._read(Activity.latest(now - _MEMORY, self._acts))
            return recommend.popularity_of(acts, now)

    async def recommendations(
        self, user_id: str, crowd: Mapping[str, float], limit: int, now: datetime
    ) -> Sequence[Recommendation]:
        async with self._turn():
            own = await self._read(Activity.of_user(user_id, now - _OWN_MEMORY, self._acts))
            own += await self._read(
                Activity.purchases(user_id, now - recommend.BOUGHT_LATELY, self._acts)
            )
            touched = {act.product_id for act in own}
            others = await self._read(
                Activity.around(list(touched), user_id, now - _MEMORY, self._neighbours, self._acts)
            )
            products = touched | set(crowd) | {act.product_id for act in others}
            lately = now - recommend.RECOMMENDED_LATELY
            return recommend.recommend(
                user_id=user_id,
                history=own,
                others=others,
                catalogue=await Product.known(products),
                popularity=crowd,
                recently_recommended=await Notification.products_recommended(user_id, lately),
                now=now,
                limit=limit,
            )

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds / 2):
                await self._turns.acquire()
        except TimeoutError as error:
            busy = "Too many recommendations are asked for: try again in a moment."
            raise Unavailable(busy) from error
        try:
            yield
        finally:
            self._turns.release()

    async def _read(self, deeds: AsyncIterator[Deed]) -> list[Act]:
        """All of them, in the time of one operation."""
        with pymongo.timeout(self._seconds):
            return [_act(deed) async for deed in deeds]


def _act(deed: Deed) -> Act:
    return Act(deed.user_id, deed.product_id, deed.kind.value, deed.at)
