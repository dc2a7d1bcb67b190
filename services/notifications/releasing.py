"""Deciding anew what is held, when its time has come.

With the user's preferences, quiet hours and caps of now: it becomes READY and spends what it may,
is HELD again, or is SUPPRESSED. Where OVER_CAP is `digest`, all that one user's caps hold on one
channel becomes one delivery, which spends once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from bson import ObjectId
from pymongo import InsertOne, UpdateOne

from services.notifications.caps import Allowance, Spent
from services.notifications.collapse import Rank, Thing
from services.notifications.deliveries import Delivery, Held
from services.notifications.dispatch import in_state, turned
from services.notifications.due import Due
from services.notifications.ledgers import Ledgers
from services.notifications.personalize import Decision, Situation, decide
from services.notifications.templates import digest_text
from services.notifications.wording import Texts
from services.shared.clock import Clock
from services.shared.content import json_size
from services.shared.events import SOURCE
from services.shared.settings import Settings
from services.shared.store import Row, Session, Store
from services.shared.vocabulary import DeliveryState, Outcome, OverCap
from services.users.models import User

_AT_ONCE: Final = 200  # each may be in a digest, which takes a while to word


class Releasing(Due[Held]):
    def __init__(self, store: Store, texts: Texts, clock: Clock, settings: Settings) -> None:
        super().__init__("held", Delivery, Held.model_validate, clock, settings)
        self._store = store
        self._texts = texts

    def _due(self, now: datetime) -> AsyncIterable[Row]:
        return Held.due(now, _AT_ONCE)

    def _size(self, row: Row) -> int:
        """A digest says each title twice."""
        return 2 * json_size(row["title"])

    async def _transact(self, claimed: Sequence[Held]) -> None:
        users = await User.by_ids({one.user_id for one in claimed})

        async def write(session: Session) -> None:
            held = await Held.still(claimed, session)
            if self._settings.over_cap is OverCap.DIGEST:
                held += await self._others(held, session)
            ledgers = await Ledgers.of(users, session)
            told = await _told_ranks(held, session)
            release = Release(users, ledgers, told, self._texts, self._clock.now(), self._settings)
            for together in self._together(held):
                release.decide(together)
            await release.write(session)

        await self._store.transact(write)

    async def _others(self, held: Sequence[Held], session: Session) -> list[Held]:
        """What else the same caps of the same users hold."""
        capped = {(one.user_id, one.channel) for one in held if one.is_over_cap}
        if not capped:
            return []
        users, ids = {user_id for user_id, _ in capped}, {one.id for one in held}
        found = await Held.over_cap(users, self._settings.fan_out_size, session)
        return [one for one in found if (one.user_id, one.channel) in capped and one.id not in ids]

    def _together(self, held: Sequence[Held]) -> Iterator[Sequence[Held]]:
        """What may go out in one delivery."""
        digests = self._settings.over_cap is OverCap.DIGEST
        size = self._settings.digest_size if digests else 1
        groups: dict[object, list[Held]] = defaultdict(list)
        for one in held:
            in_digest = digests and one.is_over_cap
            groups[(one.user_id, one.channel) if in_digest else one.id].append(one)
        for group in groups.values():
            for start in range(0, len(group), size):
                yield group[start : start + size]


async def _told_ranks(held: Sequence[Held], session: Session) -> Mapping[Thing, Rank]:
    """Of what is to go out yet of the same things: the newest."""
    open_ = await Delivery.waiting([one.thing for one in held if one.thing], session)
    return {thing: max(Rank(*row["rank"]) for row in rows) for thing, rows in open_.items()}


class Decided(NamedTuple):
    held: Held
    situation: Situation
    decision: Decision

    @property
    def is_sent(self) -> bool:
        return self.decision.outcome is Outcome.SENT


class Release:
    """Of one transaction: each sees what those before it have spent."""

    def __init__(
        self,
        users: Mapping[str, User],
        ledgers: Ledgers,
        told: Mapping[Thing, Rank],
        texts: Texts,
        now: datetime,
        settings: Settings,
    ) -> None:
        self._users = users
        self._ledgers = ledgers
        self._told = told
        self._texts = texts
        self._now = now
        self._settings = settings
        self._allowance = Allowance.of(settings)
        self._writes: list[InsertOne[Row] | UpdateOne] = []

    def decide(self, together: Sequence[Held]) -> None:
        """Decide on what one user has; if several go out, they do in one. Nothing goes out to who
        is gone or disabled."""
        user = self._users.get(together[0].user_id)
        if user is None or user.disabled_at is not None:
            for held in together:
                self._set(held, in_state(DeliveryState.CANCELLED, self._now, self._settings))
            return
        decided = [self._decided(held, user) for held in together]
        sent = [one for one in decided if one.is_sent]
        digest = self._digest(sent, user) if len(sent) > 1 else None
        for held, situation, decision in decided:
            change = turned((held.user_id, held.event), situation, decision, self._settings)
            if decision.outcome is Outcome.SENT and digest:
                change |= {"state": DeliveryState.DIGESTED.value, "digest": digest}
            elif decision.outcome is Outcome.SENT:
                self._spend(held, held.event)
            self._set(held, change)

    async def write(self, session: Session) -> None:
        await self._ledgers.write(self._allowance, self._now, session)
        if self._writes:
            collection = Delivery.get_pymongo_collection()
            await collection.bulk_write(self._writes, ordered=False, session=session)

    def _decided(self, held: Held, user: User) -> Decided:
        situation = Situation(
            held.type,
            held.message_class,
            user.preferences,
            self._now,
            held.expires_at,
            held.channel,
            user.timezone or self._settings.shop_timezone,
            held.rank,
            self._told.get(held.thing) if held.thing else None,
            allowance=replace(self._allowance, spent=self._ledgers.spent(held.user_id)),
        )
        return Decided(held, situation, decide(situation))

    def _digest(self, sent: Sequence[Decided], user: User) -> ObjectId:
        """Add what says these in one; its id. It is over when the last of them is."""
        id, first = ObjectId(), sent[0]
        held, event = first.held, f"{SOURCE} digest/{id}"
        text = digest_text([one.held.title for one in sent], self._texts.words(user))
        ends = [one.held.expires_at for one in sent]
        row: Row = {
            "_id": id,
            "user_id": held.user_id,
            "event": event,
            "channel": held.channel.value,
            "type": held.type.value,
            "title": text.title,
            "body": text.body,
            "content": {"titles": [one.held.title for one in sent]},
            "expires_at": None if None in ends else max(end for end in ends if end),
            **turned((held.user_id, event), first.situation, first.decision, self._settings),
        }
        self._writes.append(InsertOne(row))
        self._spend(held, event)
        return id

    def _spend(self, held: Held, event: str) -> None:
        self._ledgers.spend(held.user_id, Spent(event, held.channel, self._now))

    def _set(self, held: Held, change: Row) -> None:
        self._writes.append(UpdateOne({"_id": held.id}, {"$set": change}))
