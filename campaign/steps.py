"""What takes a while: broadcasts that are paused or cancelled, what is scheduled and cancelled.

Each step is asked for until its answer is known, so that the checker may hold services to it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from campaign.clients import TIMEOUT
from campaign.deeds import (
    BROADCAST,
    CANCEL,
    GRAPHQL,
    PAUSE,
    RESUME,
    SCHEDULE,
    UNSCHEDULE,
    Deed,
    gist,
)
from campaign.journal import Attempt, Outcome, Person
from campaign.people import TAG, Cast

_AGAIN_SECONDS: Final = 0.3
_STEERED_SECONDS: Final = 12  # that a broadcast takes which is paused or cancelled
_CREATE: Final = """mutation($input: BroadcastInput!) {
  answer: createBroadcast(input: $input) { id state } }"""
_STEER: Final = {
    PAUSE: "mutation($id: ID!) { answer: pauseBroadcast(id: $id) { id state } }",
    RESUME: "mutation($id: ID!) { answer: resumeBroadcast(id: $id) { id state } }",
    CANCEL: "mutation($id: ID!) { answer: cancelBroadcast(id: $id) { id state } }",
}
_SCHEDULE: Final = """mutation($input: ScheduleNotificationInput!) {
  answer: scheduleNotification(input: $input) { outcome scheduled { id } } }"""
_UNSCHEDULE: Final = """mutation($id: ID, $cancelKey: String) {
  answer: cancelScheduled(id: $id, cancelKey: $cancelKey) { outcome } }"""


class Steps:
    def __init__(
        self,
        people: Cast,
        seed: int,
        attempt: Callable[[Deed], Awaitable[Attempt]],
        now: Callable[[], datetime],
    ) -> None:
        self._people = people
        self._attempt = attempt
        self._now = now
        self._random = random.Random(f"steps {seed}")
        self._paused: list[Deed] = []

    async def broadcast(self, key: str) -> None:
        """One to everybody or to the club, which goes on by itself, or is paused or cancelled."""
        members = self._random.choice((None, self._people.club))
        step = self._random.choice((None, PAUSE, CANCEL))
        made = await self._ask(self._create(key, members, steered=step is not None))
        if made.outcome is not Outcome.OK or step is None:
            return
        await asyncio.sleep(self._random.uniform(0, _STEERED_SECONDS / 2))
        if step == PAUSE:
            resumed = self._steer(RESUME, key, made.id)
            self._paused.append(resumed)
            await self._ask(self._steer(PAUSE, key, made.id))
            await asyncio.sleep(self._random.uniform(3, 6))
            await self._ask(resumed)
        else:
            await self._ask(self._steer(CANCEL, key, made.id))

    async def later(self, key: str, user: str, type_: str) -> None:
        """One that goes out in a few seconds, unless it is cancelled before; half of them are, some
        too late."""
        ahead = self._random.uniform(2 * TIMEOUT, 12)
        due = time.time() + ahead
        deed = self._schedule(key, user, type_, self._now() + timedelta(seconds=ahead), due)
        is_cancelled, by_key = self._random.random() < 0.5, self._random.random() < 0.5
        made = await self._ask(deed, due - TIMEOUT - 1)  # its answer comes before its time
        if not is_cancelled or not (by_key or made.id):
            return
        await asyncio.sleep(max(0, due + self._random.uniform(-1, 0.8) - time.time()))
        await self._ask(self._unschedule(key, None if by_key else made.id))

    async def finish(self) -> None:
        """When nothing is broken any more: a pause that nobody answered may have come late."""
        for resumed in self._paused:
            await self._ask(resumed)

    async def _ask(self, deed: Deed, until: float = float("inf")) -> Attempt:
        """Until it is answered, or so late."""
        while True:
            made = await self._attempt(deed)
            if made.outcome is not Outcome.INDETERMINATE or time.time() > until:
                return made
            await asyncio.sleep(_AGAIN_SECONDS)

    def _create(self, key: str, members: Sequence[Person] | None, *, steered: bool) -> Deed:
        """`members`: None for everybody."""
        text = {"title": f"Offer {key}", "body": "To many."}
        count = len(self._people.all if members is None else members)
        given: dict[str, Any] = {
            "audience": {} if members is None else {"tags": [TAG]},
            "perSecond": count // _STEERED_SECONDS if steered else None,
            "dedupKey": key,
        }
        return Deed(
            kind=BROADCAST,
            via=GRAPHQL,
            key=key,
            users=None if members is None else tuple(person.id for person in members),
            gist=gist(text),
            token=self._people.admin.token,
            document=_CREATE,
            variables={"input": text | given},
        )

    def _steer(self, step: str, key: str, id: str) -> Deed:
        return Deed(
            kind=step,
            via=GRAPHQL,
            key=key,
            users=(),
            token=self._people.admin.token,
            document=_STEER[step],
            variables={"id": id},
        )

    def _schedule(self, key: str, user: str, type_: str, at: datetime, due: float) -> Deed:
        content = {"body": "As you wished.", "key": key}
        given = {"userId": user, "type": type_.upper(), "content": content, "at": at.isoformat()}
        return Deed(
            kind=SCHEDULE,
            via=GRAPHQL,
            key=key,
            users=(user,),
            type=type_,
            gist=gist(content),
            token=self._people.backend.token,
            document=_SCHEDULE,
            variables={"input": given | {"dedupKey": key, "cancelKey": key}},
            due=due,
        )

    def _unschedule(self, key: str, id: str | None) -> Deed:
        """By its id, or else by its cancelKey."""
        return Deed(
            kind=UNSCHEDULE,
            via=GRAPHQL,
            key=key,
            users=(),
            token=self._people.backend.token,
            document=_UNSCHEDULE,
            variables={"id": id} if id else {"cancelKey": key},
        )
