"""What one transaction sends on the channels besides the app: decided, stored, and what it spends.

A channel that is off costs no row, and no question but whether an older state waits there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple, Self

from bson import ObjectId
from msgspec import structs
from pymongo import InsertOne, UpdateMany

from services.notifications import traces
from services.notifications.caps import UNCAPPED, Allowance, Spent
from services.notifications.channels import DELIVERED
from services.notifications.collapse import Rank, Thing
from services.notifications.deliveries import Delivery, Unique
from services.notifications.drafts import Draft, Key, Lives
from services.notifications.ledgers import Ledgers, Unit
from services.notifications.personalize import SAME_EVENT, Decision, Reason, Situation, decide
from services.shared.settings import Settings
from services.shared.store import Row, Session
from services.shared.vocabulary import Channel, DeliveryState, MessageClass, Outcome
from services.users.preferences import Preferences

_STATES: Final = {
    **DELIVERED,
    Outcome.SUPPRESSED: DeliveryState.SUPPRESSED,
    Outcome.SUPERSEDED: DeliveryState.SUPERSEDED,
}
_ROW_BYTES: Final = 1024
_LEAST_SPREAD: Final = 1.0  # seconds


class Wanted(NamedTuple):
    """A draft, and of its user what decides: at that moment. `timezone`: None for the shop's;
    `channels`: on which it is decided, besides the app."""

    draft: Draft
    preferences: Preferences
    timezone: str | None
    message_class: MessageClass
    channels: tuple[Channel, ...]

    def lasting(self, now: datetime, lives: Lives) -> Wanted:
        """With an end, where its type has one."""
        lasting = self.draft.lasting(now, lives)
        return self if lasting is self.draft else Wanted(lasting, *self[1:])

    @property
    def size(self) -> int:
        """Bytes that are written, nearly: a delivery repeats all of it, and many small rows take
        as long as a few large ones."""
        return (self.draft.size + _ROW_BYTES) * (1 + len(self.channels))

    @property
    def may_spend(self) -> bool:
        return bool(self.channels) and self.message_class is MessageClass.MARKETING


class Dispatch:
    """Drafts for one user see what those before them have spent, and states of one thing one
    another."""

    def __init__(
        self,
        there: Set[Unique],
        waiting: Mapping[Thing, list[Row]],
        ledgers: Ledgers,
        now: datetime,
        settings: Settings,
    ) -> None:
        self._there = there
        self._waiting = dict(waiting)
        self._ledgers = ledgers
        self._now = now
        self._settings = settings
        self._allowance = Allowance.of(settings)
        self._new: dict[ObjectId, Row] = {}
        self._superseded: list[ObjectId] = []

    @classmethod
    async def of(
        cls, wanted: Sequence[Wanted], now: datetime, settings: Settings, session: Session
    ) -> Self:
        there = await Delivery.there([one.draft.key for one in wanted if one.channels], session)
        things = [one.draft.thing for one in wanted if one.draft.thing]
        waiting = await Delivery.waiting(things, session)
        spenders = {one.draft.user_id for one in wanted if one.may_spend}
        spenders |= {row["user_id"] for rows in waiting.values() for row in rows if _has_spent(row)}
        return cls(there, waiting, await Ledgers.of(spenders, session), now, settings)

    def send(
        self, draft: Draft, channels: Sequence[Channel], situation: Situation, in_app: Decision
    ) -> Mapping[Channel, Decision]:
        """Decide on each of these channels; `in_app`: what was decided about the app.

        What a newer state takes the place of is given back to it: it may spend that again.
        """
        waiting = self._waiting.get(draft.thing, []) if draft.thing else []
        if in_app.outcome is Outcome.SUPERSEDED or not (channels or waiting):
            return {}
        decided: dict[Channel, Decision] = {}
        older = [row for row in waiting if _is_older(row, draft)]
        told = max((*map(_rank, waiting), *_given(situation.told_rank)), default=None)
        rank = draft.collapse.rank if draft.collapse else None
        units = {_unit(row) for row in older}
        for channel in channels:
            if (*draft.key, channel) in self._there:
                decided[channel] = SAME_EVENT
                continue
            here = situation.on(channel, rank, told, self._left(draft, situation, units))
            decided[channel] = decision = decide(here)
            if decision.outcome in DELIVERED:
                self._add(draft, here, decision)
        outcomes = {in_app.outcome, *(one.outcome for one in decided.values())}
        if not outcomes.isdisjoint(DELIVERED):
            self._supersede(older)
        return decided

    async def write(self, session: Session) -> None:
        await self._ledgers.write(self._allowance, self._now, session)
        writes: list[InsertOne[Row] | UpdateMany] = [InsertOne(row) for row in self._new.values()]
        if self._superseded:
            turned_so = in_state(DeliveryState.SUPERSEDED, self._now, self._settings)
            writes.append(UpdateMany({"_id": {"$in": self._superseded}}, {"$set": turned_so}))
        if writes:
            await Delivery.get_pymongo_collection().bulk_write(
                writes, ordered=False, session=session
            )

    def _left(self, draft: Draft, situation: Situation, units: Set[Unit]) -> Allowance:
        """Of what is capped; nothing else asks for it."""
        if situation.message_class is not MessageClass.MARKETING:
            return self._allowance
        return replace(self._allowance, spent=self._ledgers.spent(draft.user_id, besides=units))

    def _add(self, draft: Draft, situation: Situation, decision: Decision) -> None:
        row: Row = {
            "_id": ObjectId(),
            "user_id": draft.user_id,
            "event": draft.event,
            "channel": situation.channel.value,
            "type": draft.type.value,
            "title": draft.text.title,
            "body": draft.text.body,
            "content": draft.content,
            "expires_at": draft.expires_at,
            **turned(draft.key, situation, decision, self._settings),
        }
        if draft.collapse and draft.thing:  # a partial index leaves out those without
            row |= {"thing": draft.thing, "rank": list(draft.collapse.rank)}
            self._waiting.setdefault(draft.thing, []).append(row)
        self._new[row["_id"]] = row
        if _has_spent(row):
            self._ledgers.spend(draft.user_id, Spent(draft.event, situation.channel, self._now))

    def _supersede(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if _has_spent(row):
                self._ledgers.give_back(row["user_id"], _unit(row))
            row |= in_state(DeliveryState.SUPERSEDED, self._now, self._settings)
            self._waiting[row["thing"]].remove(row)
            if row["_id"] not in self._new:
                self._superseded.append(row["_id"])


def turned(key: Key, situation: Situation, decision: Decision, settings: Settings) -> Row:
    """What is set of a delivery when it was decided so. `key`: of what it delivers."""
    due_at = None
    if decision.outcome is Outcome.HELD:
        due_at = decision.until
        if due_at and decision.reason is Reason.QUIET_HOURS:
            due_at = _spread_within(situation, due_at, key, settings.quiet_release_seconds)
    return in_state(_STATES[decision.outcome], due_at or situation.at, settings) | {
        "decision": traces.stored(situation, decision),
        "due_at": due_at,
    }


def in_state(state: DeliveryState, at: datetime, settings: Settings) -> Row:
    """What is set of a delivery that is in this state from `at` on. What is HELD is not forgotten:
    it is decided first."""
    if state is DeliveryState.HELD:
        return {"state": state.value, "forget_at": None}
    memory = timedelta(seconds=settings.delivery_memory_seconds)
    return {"state": state.value, "forget_at": at + memory}


def _spread_within(situation: Situation, end: datetime, key: Key, seconds: float) -> datetime:
    """Some time after `end`: before it is over, and before the next quiet time, if that leaves
    any room."""
    while seconds >= _LEAST_SPREAD:
        at = end + spread(key, seconds)
        if decide(structs.replace(situation, at=at, allowance=UNCAPPED)).outcome is Outcome.SENT:
            return at
        seconds /= 2
    return end


def spread(key: Key, seconds: float) -> timedelta:
    """Less than so many seconds: evenly among many, and always the same for the same."""
    number = int.from_bytes(sha256(" ".join(key).encode()).digest()[:8])
    return timedelta(milliseconds=number * int(seconds * 1000) >> 64)


def _is_older(row: Row, draft: Draft) -> bool:
    """Whether it need not go out any more. What is critical goes out all the same."""
    is_critical = MessageClass(row["decision"]["class"]) is MessageClass.CRITICAL
    return draft.collapse is not None and _rank(row) < draft.collapse.rank and not is_critical


def _has_spent(row: Row) -> bool:
    is_marketing = MessageClass(row["decision"]["class"]) is MessageClass.MARKETING
    return is_marketing and DeliveryState(row["state"]) is DeliveryState.READY


def _unit(row: Row) -> Unit:
    return row["event"], Channel(row["channel"])


def _rank(row: Row) -> Rank:
    return Rank(*row["rank"])


def _given(rank: Rank | None) -> Sequence[Rank]:
    return () if rank is None else (rank,)
