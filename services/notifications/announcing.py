"""Announcing what is wanted for users: it is decided, stored and told.

Decided and stored in one transaction, so that what is shown of the same thing, and what was spent,
is still so when it is stored. A transaction also where one insert would do: the database ends it in
time, while a single write that the network holds back may arrive behind the cursors of those who
read on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Final, NamedTuple

from pymongo.errors import BulkWriteError

from services.notifications import traces
from services.notifications.caps import Allowance
from services.notifications.deciding import Deciding
from services.notifications.dispatch import Dispatch, Wanted
from services.notifications.drafts import Announcement, Draft
from services.notifications.hints import hints
from services.notifications.ledgers import Ledgers
from services.notifications.models import Notification
from services.notifications.personalize import (
    SAME_EVENT,
    Decision,
    Reason,
    Situation,
    decide,
    other_channels,
)
from services.notifications.policy import class_of
from services.notifications.revisions import Revision
from services.notifications.shelf import Shelf
from services.notifications.traces import Explanation, Trace
from services.shared.bus import Bus
from services.shared.clock import Clock
from services.shared.errors import BadInput, Conflict, NotFound
from services.shared.outbox import Outbox
from services.shared.pulse import Counts
from services.shared.settings import Settings
from services.shared.store import (
    PART_BYTES,
    Row,
    Session,
    Store,
    insert_new,
    is_duplicate,
    parts,
)
from services.shared.tasks import end_if_cancelled
from services.shared.vocabulary import Channel, NotificationType, Outcome
from services.users.models import User
from services.users.recipients import Addressee

_UNWANTED: Final = (Outcome.HELD, Outcome.SUPPRESSED)


class _TooMuchRevised(Exception):
    """What is shown now, and kept as it was, would be too much for one transaction."""


class Decided(NamedTuple):
    """What became of a draft, and the trace of it; None where it was decided before."""

    draft: Draft
    announcement: Announcement
    trace: Row | None = None


class Announcing:
    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        bus: Bus,
        clock: Clock,
        settings: Settings,
        counts: Counts | None = None,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._counts = counts or Counts()
        self._channels = frozenset(settings.delivery_channels)
        self._trace_life = timedelta(seconds=settings.trace_seconds)
        self._lives = {
            NotificationType.PROMOTION: timedelta(seconds=settings.promotion_life_seconds),
            NotificationType.RECOMMENDATION: timedelta(
                seconds=settings.recommendation_life_seconds
            ),
        }

    async def announce(
        self, drafts: Sequence[Draft], recipients: Mapping[str, Addressee]
    ) -> Sequence[Announcement]:
        """Decide, store and tell, for many at once; in the drafts' order.

        For event handlers: the event stays in hand until all is done, and comes again when not.
        A draft that was announced before is not stored again, but told again, whatever is decided
        now, since the one who stored it may not have come to that. `recipients` holds the drafts'
        users by id.
        """
        distinct = {draft.key: draft for draft in drafts}
        decided = await self._store_new(self._wanted(distinct.values(), recipients))
        announced = {one.draft.key: one.announcement for one in decided}
        told = (
            one.row
            for one in announced.values()
            if one.decision.outcome in (Outcome.SENT, Outcome.DUPLICATE)
        )
        await self._bus.publish(hints(told, self._clock.now()))
        await insert_new(Trace, self._traces(decided))  # one that comes again changes none
        return [announced[draft.key] for draft in drafts]

    async def announce_within(
        self, session: Session, drafts: Sequence[Draft], recipients: Mapping[str, Addressee]
    ) -> Sequence[Announcement]:
        """Decide, store and tell in the session's transaction; in the drafts' order.

        Raises BulkWriteError for a draft that was announced before. Wake the outbox when it is
        committed, and count what was announced.
        """
        decided = await self._write(self._wanted(drafts, recipients), session)
        await traces.keep(self._traces(decided), session)
        announced = [one.announcement for one in decided]
        sent = [one for one in announced if one.decision.outcome is Outcome.SENT]
        # The outbox keeps in order what is told to one user: so each is told alone.
        if events := hints((one.row for one in sent), self._clock.now(), together=1):
            await self._outbox.put(events, session)
        return announced

    async def announce_one(self, draft: Draft, user: Addressee) -> Announcement:
        """Decide, store and tell. Raises Conflict for a key under which another was announced."""
        recipients: Mapping[str, Addressee] = {draft.user_id: user}
        while True:
            try:
                [announcement] = await self._store.transact(
                    lambda session: self.announce_within(session, [draft], recipients)
                )
            except BulkWriteError as error:
                if not is_duplicate(error):
                    raise
                if original := await self.original(draft):
                    return original
            else:
                self._outbox.wake()
                self.count([announcement])
                if announcement.decision.outcome is Outcome.SENT:
                    return announcement
                return await self.original(draft) or announcement

    def count(self, announced: Sequence[Announcement]) -> None:
        """Add what became of them to this process' counts, when that is stored."""
        sent = Outcome.SENT
        others = [one.decision for one in announced if one.decision.outcome is not sent]
        self._counts.sent += len(announced) - len(others)
        self._counts.suppressed += sum(
            one.outcome in _UNWANTED and one.reason is not Reason.EXPIRED for one in others
        )

    async def original(self, draft: Draft) -> Announcement | None:
        """What was stored before under the draft's key. Raises Conflict if it is not the same."""
        stored = (await Notification.of_events([draft.key])).get(draft.key)
        is_same = stored is not None and draft.is_told_by(Notification.model_validate(stored))
        if stored is None and (former := await Revision.of_event(draft.key)):
            stored = await Notification.get_pymongo_collection().find_one(
                {"_id": former.notification_id}
            )
            is_same = draft.said == former.said
        if stored is None:
            return None
        if not is_same:
            raise Conflict("This dedupKey was used for another notification: choose a new one.")
        return Announcement(stored, Decision(Outcome.DUPLICATE, Reason.SAME_DEDUP_KEY))

    async def dry_run(
        self, user_id: str, type_: NotificationType, channel: Channel, at: datetime | None
    ) -> Explanation:
        """What would be decided about a notification of that type, now or then. Raises NotFound,
        and BadInput for a channel on which nothing is sent."""
        user = await User.by_id(user_id)
        if user is None:
            raise NotFound(f"There is no user {user_id}.")
        if channel is not Channel.IN_APP and channel not in self._channels:
            raise BadInput(
                "Nothing is sent there: DELIVERY_CHANNELS of the server leaves it out.", "channel"
            )
        at = at or self._clock.now()
        life = self._lives.get(type_)
        spent = (await Ledgers.of([user_id])).spent(user_id)
        situation = Situation(
            type_,
            class_of(type_),
            user.preferences,
            at,
            at + life if life else None,
            channel,
            user.timezone or self._settings.shop_timezone,
            allowance=replace(Allowance.of(self._settings), spent=spent),
        )
        return traces.explanation_of_none(situation, decide(situation))

    async def _store_new(self, wanted: Sequence[Wanted]) -> list[Decided]:
        """As many in a transaction as it has time for."""
        decided: list[Decided] = []
        for part in parts(wanted, attrgetter("size")):
            decided += await self._store_part(part)
        return decided

    async def _store_part(self, wanted: Sequence[Wanted]) -> list[Decided]:
        """Another worker may have the same events in hand, or what shows the same things."""
        known: list[Decided] = []
        write = partial(self._write, most_bytes=PART_BYTES)
        while True:
            end_if_cancelled()
            try:
                decided = await self._store.transact(partial(write, wanted))
            except _TooMuchRevised:
                half = len(wanted) // 2
                first = await self._store_part(wanted[:half])
                return known + first + await self._store_part(wanted[half:])
            except BulkWriteError as error:
                if not is_duplicate(error):
                    raise
            else:
                self.count([one.announcement for one in decided])
                return known + decided
            stored = await Notification.of_events([one.draft.key for one in wanted])
            known += [
                Decided(one.draft, Announcement(stored[one.draft.key], SAME_EVENT))
                for one in wanted
                if one.draft.key in stored
            ]
            wanted = [one for one in wanted if one.draft.key not in stored]

    async def _write(
        self, wanted: Sequence[Wanted], session: Session, most_bytes: float = math.inf
    ) -> list[Decided]:
        """Decide and store, in the session's transaction. Raises _TooMuchRevised where several,
        with what they revise, have more than so many bytes."""
        now = self._clock.now()
        wanted = [one.lasting(now, self._lives) for one in wanted]
        shelf = await Shelf.of([one.draft for one in wanted], now, session)
        revised = shelf.size if len(wanted) > 1 and most_bytes < math.inf else 0
        if revised and revised + sum(one.size for one in wanted) > most_bytes:
            raise _TooMuchRevised
        dispatch = await Dispatch.of(wanted, now, self._settings, session)
        deciding = Deciding(now, self._settings.shop_timezone)
        refused = [
            one.draft.key
            for one in wanted
            if not one.draft.thing and deciding.about(one).decision.outcome is not Outcome.SENT
        ]
        # Of what is accepted anew the unique index knows.
        known = await Notification.of_events(refused, session)
        made: list[tuple[Draft, Decision, Mapping[Channel, Decision], Row | None]] = []
        for one in wanted:
            draft = one.draft
            if draft.key in known or shelf.has_told(draft):
                made.append((draft, SAME_EVENT, {}, None))
                continue
            situation, decision, trace = deciding.about(one, shelf.told_rank(draft))
            others = dispatch.send(draft, one.channels, situation, decision)
            trace = traces.with_others(trace, others)
            made.append((draft, decision, others, trace))
            if decision.outcome is Outcome.SENT:
                shelf.put(draft, trace)
        await shelf.write(session, self._settings.revisions_kept)
        await dispatch.write(session)

        def row(draft: Draft, decision: Decision) -> Row | None:
            if decision.outcome in _UNWANTED:
                return None
            return known.get(draft.key) or shelf.row(draft)

        return [
            Decided(draft, Announcement(row(draft, decision), decision, others), trace)
            for draft, decision, others, trace in made
        ]

    def _wanted(self, drafts: Iterable[Draft], recipients: Mapping[str, Addressee]) -> list[Wanted]:
        wanted = []
        for draft in drafts:
            user, class_ = recipients[draft.user_id], class_of(draft.type, draft.status)
            channels = self._connected(other_channels(user.choices, draft.type, class_))
            wanted.append(Wanted(draft, user.preferences, user.timezone, class_, channels))
        return wanted

    def _connected(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """Those among them that have a sender."""
        if self._channels.issuperset(channels):
            return channels
        return tuple(channel for channel in channels if channel in self._channels)

    def _traces(self, decided: Sequence[Decided]) -> list[Row]:
        """Of what is not sent."""
        forget_at = self._clock.now() + self._trace_life
        return [
            traces.trace_row(one.draft, one.trace, forget_at)
            for one in decided
            if one.trace and one.announcement.decision.outcome is not Outcome.SENT
        ]
