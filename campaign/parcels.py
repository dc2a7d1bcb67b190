"""Orders that move on: which status of which comes next."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from campaign.deeds import Backend, Deed, Producer
from campaign.journal import Person

PARCELS: Final = 40
_OUT_OF_ORDER: Final = 4
_BEFORE: Final = timedelta(days=1)  # a time to come would count as now


class Parcels:
    """The statuses of each come nearly in their order: a few overtake one another.

    Half of them have versions. Of the others only the events' times rise, second by second, all of
    them yesterday; these are published straight, since mutations stamp the time of the call.
    """

    def __init__(
        self,
        users: Sequence[Person],
        backend: Backend,
        producers: Sequence[Producer],
        chance: random.Random,
        now: Callable[[], datetime],
    ) -> None:
        self._users = users
        self._backend = backend
        self._producers = producers
        self._random = chance
        self._now = now
        self._start = now() - _BEFORE
        self._coming: list[list[int]] = [[] for _ in range(PARCELS)]
        self._highest = [0] * PARCELS  # of those that came, or are to come

    def next(self) -> Deed:
        number = self._random.randrange(PARCELS)
        order, user = f"parcel-{number}", self._users[number % len(self._users)].id
        version, producer = self._version(number), self._random.choice(self._producers)
        if number % 2:
            at = self._start + timedelta(seconds=version)
            return producer.move(order, version, user, at, says=False)
        if self._random.random() < 0.5:
            return self._backend.move(order, version, user)
        return producer.move(order, version, user, self._now(), says=True)

    def _version(self, number: int) -> int:
        coming = self._coming[number]
        if len(coming) <= 1:
            next_ = self._highest[number] + 1
            self._highest[number] += _OUT_OF_ORDER
            coming += self._random.sample(range(next_, next_ + _OUT_OF_ORDER), _OUT_OF_ORDER)
        return coming.pop(0)
