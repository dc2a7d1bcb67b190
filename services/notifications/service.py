"""What is done with notifications: announce, create, recommend, mark read, archive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from services.notifications import recommend, traces
from services.notifications.cursor import Cursor, Position, Progress
from services.notifications.drafts import (
    Announcement,
    Asked,
    Draft,
    Key,
    check_key,
    checked_end,
    recommendation_draft,
)
from services.notifications.gather import Gatherer
from services.notifications.models import Notification, Product
from services.notifications.personalize import Decision, Reason, Situation, decide
from services.notifications.policy import class_of
from services.notifications.recommend import Recommendation
from services.notifications.traces import Explanation, Trace
from services.notifications.wording import Texts
from services.shared.bus import Bus
from services.shared.clock import Clock
from services.shared.content import composed
from services.shared.errors import BadInput, Conflict, NotFound
from services.shared.events import (
    Data,
    Event,
    NotificationChanged,
    ProductChanged,
)
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session, Store, insert_new, is_duplicate, parts, write_all
from services.shared.tasks import end_if_cancelled
from services.shared.vocabulary import ChangeKind, Channel, NotificationType, Outcome
from services.users.models import User


class Decided(NamedTuple):
    """A draft, and whether it is sent, and why."""

    draft: Draft
    situation: Situation
    decision: Decision

    @property
    def is_sent(self) -> bool:
        return self.decision.outcome is Outcome.SENT

    @property
    def trace(self) -> dict[str, Any]:
        return traces.stored(self.situation, self.decision)


class NotificationService:
    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        bus: Bus,
        texts: Texts,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self.texts = texts
        self._store = store
        self._outbox = outbox
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._gatherer = Gatherer(settings)
        self._trace_life = timedelta(seconds=settings.trace_seconds)
        self._lives = {
            NotificationType.PROMOTION: timedelta(seconds=settings.promotion_life_seconds),
            NotificationType.RECOMMENDATION: timedelta(
                seconds=settings.recommendation_life_seconds
            ),
        }

    async def announce(
        self, drafts: Sequence[Draft], recipients: Mapping[str, User]
    ) -> Sequence[Announcement]:
        """Decide, store and tell, for many at once; in the drafts' order.

        For event handlers: the event stays in hand until all is done, and comes again when not.
        A draft that was announced before is not stored again, but told again, whatever is decided
        now, since the one who stored it may not have come to that. `recipients` holds the drafts'
        users by id.

        A transaction, although one insert would do: the database ends it in time, while a single
        write that the network holds back may arrive behind the cursors of those who read on.
        """
        known = await Notification.of_events([draft.key for draft in drafts])
        decided = [self._decided(draft, recipients[draft.user_id]) for draft in drafts]
        new = [one for one in decided if one.draft.key not in known]
        stored = {**known, **await self._store_new(one for one in new if one.is_sent)}
        await self._bus.publish([self._event(one.created()) for one in stored.values()])
        await insert_new(Trace, self._traces(new))  # one that comes again changes none
        return [_announcement(one, stored, known) for one in decided]

    async def announce_within(
        self, session: Session, drafts: Sequence[Draft], recipients: Mapping[str, User]
    ) -> Sequence[Announcement]:
        """Decide, store and tell in the session's transaction; in the drafts' order.

        Raises BulkWriteError for a draft that was announced before. Wake the outbox when it is
        committed.
        """
        decided = [self._decided(draft, recipients[draft.user_id]) for draft in drafts]
        await traces.keep(self._traces(decided), session)
        stored: Mapping[Key, Notification] = {}
        if new := [one for one in decided if one.is_sent]:
            rows = await self._insert(new, session)
            stored = {(one.user_id, one.event): one for one in rows}
            await self._outbox.put([self._event(one.created()) for one in rows], session)
        return [Announcement(stored.get(one.draft.key), one.decision) for one in decided]

    async def create(
        self,
        user_id: str,
        type_: NotificationType,
        content: Any,
        *,
        title: str | None = None,
        dedup_key: str | None = None,
        expires_at: datetime | None = None,
        source: str,
    ) -> Announcement:
        """Notify one user now. `source` names the caller, whose dedup keys are its own.
        `expires_at`: None for what its type has.

        Raises BadInput, NotFound for an unknown user, and Conflict for a dedup key that was used
        with another notification.
        """
        asked = Asked(user_id, type_, content, title).checked(self._settings.max_content_bytes)
        check_key(dedup_key, "input.dedupKey")
        ends = checked_end(expires_at, "input.expiresAt")
        user = await self._user(user_id)
        event = (
            f"{source}/dedup {dedup_key}" if dedup_key is not None else f"{source} {uuid4().hex}"
        )
        draft = replace(asked.draft(event, self.texts.words(user)), expires_at=ends)
        if ends is not None and ends <= self._clock.now():
            if original := await self._original(draft):
                return original
            raise BadInput("expiresAt lies in the past.", "input.expiresAt")
        return await self._announce_one(draft, user)

    async def recommend(self, user_id: str, source: str) -> Announcement:
        """Send one notification with up to five products. Raises NotFound."""
        found = await self.recommendations(user_id, 5)
        user = await self._user(user_id)  # now: what they refuse while we seek counts
        if len(found) < recommend.FEWEST_WORTH_SENDING:
            return Announcement(None, Decision(Outcome.SUPPRESSED, Reason.TOO_FEW_CANDIDATES))
        event = f"{source} {uuid4().hex}"
        draft = recommendation_draft(user_id, event, found, self.texts.words(user))
        return await self._announce_one(draft, user)

    async def dry_run(
        self, user_id: str, type_: NotificationType, channel: Channel, at: datetime | None
    ) -> Explanation:
        """What would be decided about a notification of that type, now or then. Raises NotFound."""
        user = await self._user(user_id)
        at = at or self._clock.now()
        life = self._lives.get(type_)
        ends = at + life if life else None
        situation = Situation(
            type_, class_of(type_), user.preferences, at, ends, channel, self._zone(user)
        )
        return traces.explanation_of_none(situation, decide(situation))

    async def recommendations(self, user_id: str, limit: int) -> Sequence[Recommendation]:
        """What would be recommended to this user now, the best first."""
        now = self._clock.now()
        crowd = await self._gatherer.crowd(now)
        return await self._gatherer.recommendations(user_id, crowd, limit, now)

    async def set_read(self, user_id: str, id: str, read: bool) -> Notification:
        """Mark one as read or unread; marking again changes nothing. Raises NotFound."""
        return await self._change(
            user_id,
            id,
            ChangeKind.READ if read else ChangeKind.UNREAD,
            was={"read": not read},
            becomes={"read": read, "read_at": self._clock.now() if read else None},
        )

    async def set_archived(self, user_id: str, id: str, archived: bool) -> Notification:
        """Archive one or take it back; doing so again changes nothing. Raises NotFound."""
        return await self._change(
            user_id,
            id,
            ChangeKind.ARCHIVED if archived else ChangeKind.UNARCHIVED,
            was={"archived": not archived},
            becomes={"archived": archived},
        )

    async def mark_all_read(self, user_id: str, up_to: Cursor | None) -> int:
        """Mark all as read that were seen at this cursor, or all; how many were unread."""
        seen = Progress(up_to) if up_to else None
        size = self._settings.fan_out_size
        start, marked = Position.start(), 0
        while places := await Notification.unread_behind(user_id, start, size, self._clock.now()):
            end_if_cancelled()
            start = places[-1]
            chosen = [place for place in places if seen is None or not seen.wants(place)]
            marked += await self._mark_read(user_id, [place.object_id for place in chosen])
        return marked

    async def keep_products(self, changes: Sequence[tuple[ProductChanged, datetime]]) -> None:
        """Keep what the catalogue says of products; an older word never replaces a newer one."""
        writes = [
            UpdateOne(
                {"_id": product.product_id, "changed_at": {"$not": {"$gt": at}}},
                {
                    "$set": {
                        "name": composed(product.name),
                        "category": composed(product.category),
                        "changed_at": at,
                    }
                },
                upsert=True,
            )
            for product, at in changes
        ]
        refused = await write_all(Product, writes)
        # By a newer word; or by one that another worker inserted at the same moment.
        await write_all(Product, [writes[position] for position in sorted(refused)])

    async def _store_new(self, new: Iterable[Decided]) -> Mapping[Key, Notification]:
        """The drafts' notifications by key, as many in a transaction as it has time for."""
        stored: dict[Key, Notification] = {}
        for part in parts(new, lambda one: one.draft.size):
            stored |= await self._store_part({one.draft.key: one for one in part})
        return stored

    async def _store_part(self, drafts: Mapping[Key, Decided]) -> Mapping[Key, Notification]:
        """The same of a part. Another worker may have the same events in hand."""
        stored: Mapping[Key, Notification] = {}
        while new := [one for key, one in drafts.items() if key not in stored]:
            end_if_cancelled()
            try:
                added = await self._store.transact(partial(self._insert, new))
            except BulkWriteError as error:
                if not is_duplicate(error):
                    raise
                stored = await Notification.of_events(list(drafts))
            else:
                stored = {**stored, **{(one.user_id, one.event): one for one in added}}
        return stored

    async def _insert(self, new: Sequence[Decided], session: Session) -> Sequence[Notification]:
        now = self._clock.now()
        rows = [one.draft.row(now, one.trace) for one in new]
        await Notification.get_pymongo_collection().insert_many(rows, session=session)
        return [Notification.model_validate(row) for row in rows]

    def _decided(self, draft: Draft, user: User) -> Decided:
        """What is decided about it now; with an end, where its type has one."""
        now = self._clock.now()
        draft = draft.lasting(now, self._lives)
        situation = Situation(
            draft.type,
            class_of(draft.type, draft.status),
            user.preferences,
            now,
            draft.expires_at,
            timezone=self._zone(user),
        )
        return Decided(draft, situation, decide(situation))

    def _zone(self, user: User) -> str:
        return user.timezone or self._settings.shop_timezone

    def _traces(self, decided: Sequence[Decided]) -> list[dict[str, Any]]:
        """Of what is not sent."""
        forget_at = self._clock.now() + self._trace_life
        return [
            traces.trace_row(one.draft, one.trace, forget_at) for one in decided if not one.is_sent
        ]

    async def _user(self, user_id: str) -> User:
        user = await User.by_id(user_id)
        if user is None:
            raise NotFound(f"There is no user {user_id}.")
        return user

    async def _announce_one(self, draft: Draft, user: User) -> Announcement:
        """Store the notification and its event in one transaction."""
        recipients = {draft.user_id: user}
        try:
            [announcement] = await self._store.transact(
                lambda session: self.announce_within(session, [draft], recipients)
            )
        except BulkWriteError as error:
            if not is_duplicate(error):
                raise
            original = await self._original(draft)
            assert original is not None, "notifications are never deleted"
            return original
        if announcement.notification is None:
            return await self._original(draft) or announcement
        self._outbox.wake()
        return announcement

    async def _original(self, draft: Draft) -> Announcement | None:
        """What was stored before under the draft's key. Raises Conflict if it is not the same."""
        original = (await Notification.of_events([draft.key])).get(draft.key)
        if original is None:
            return None
        if not draft.is_told_by(original):
            raise Conflict("This dedupKey was used for another notification: choose a new one.")
        return Announcement(original, Decision(Outcome.DUPLICATE, Reason.SAME_DEDUP_KEY))

    async def _change(
        self,
        user_id: str,
        id: str,
        kind: ChangeKind,
        *,
        was: dict[str, Any],
        becomes: dict[str, Any],
    ) -> Notification:
        if await Notification.one(user_id, id, self._clock.now()) is None:
            raise NotFound("There is no such notification.")

        async def write(session: Session) -> int:
            return await self._set(session, user_id, [ObjectId(id)], kind, was, becomes)

        await self._commit(write)
        changed = await Notification.one(user_id, id, self._clock.now())
        if changed is None:
            raise NotFound("The notification has just expired.")
        return changed

    async def _mark_read(self, user_id: str, ids: list[ObjectId]) -> int:
        async def write(session: Session) -> int:
            becomes = {"read": True, "read_at": self._clock.now()}
            return await self._set(session, user_id, ids, ChangeKind.READ, {"read": False}, becomes)

        return await self._commit(write)

    async def _set(
        self,
        session: Session,
        user_id: str,
        ids: list[ObjectId],
        kind: ChangeKind,
        was: dict[str, Any],
        becomes: dict[str, Any],
    ) -> int:
        """Change those that are still as they were, and tell of them; how many that are."""
        collection = Notification.get_pymongo_collection()
        query = {"_id": {"$in": ids}, "user_id": user_id, **was}
        changing = [row["_id"] async for row in collection.find(query, {"_id": 1}, session=session)]
        if changing:
            told = {"change": kind.value, "changed_at": self._clock.now()}
            await collection.update_many(
                {"_id": {"$in": changing}}, {"$set": becomes | told}, session=session
            )
            changed = NotificationChanged(
                user_id=user_id, kind=kind, notification_ids=tuple(map(str, changing))
            )
            await self._outbox.put([self._event(changed)], session)
        return len(changing)

    async def _commit(self, write: Callable[[Session], Awaitable[int]]) -> int:
        count = await self._store.transact(write)
        self._outbox.wake()
        return count

    def _event(self, data: Data) -> Event:
        return Event.of(data, time=self._clock.now())


def _announcement(
    decided: Decided, stored: Mapping[Key, Notification], known: Mapping[Key, Notification]
) -> Announcement:
    key = decided.draft.key
    if key in known:
        return Announcement(known[key], Decision(Outcome.DUPLICATE, Reason.SAME_EVENT))
    return Announcement(stored.get(key), decided.decision)
