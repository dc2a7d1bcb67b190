"""What goes out on other channels than the app, and the questions one may ask of it.

A delivery holds all that is to be said: what was decided goes out as it was then, although the
notification in the app may have been revised since. It is HELD until `due_at`, when it is decided
anew, or READY for a sender to take. READY says what was decided then: whoever withdraws consent
later stops none, so a sender decides anew when it claims one. There are no senders yet: what is
READY stays so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Self

from beanie import Document, PydanticObjectId
from pydantic import BaseModel, Field, ValidationError
from pymongo import IndexModel

from services.notifications.collapse import Rank, Thing, states_of
from services.notifications.drafts import Key
from services.notifications.personalize import Reason
from services.shared.store import Row, Session
from services.shared.vocabulary import Channel, DeliveryState, MessageClass, NotificationType

Unique = tuple[str, str, Channel]  # of a delivery: its user's id, its event's key, its channel

_HELD: Final = {"state": DeliveryState.HELD.value}
_OPEN: Final = {"state": {"$in": [DeliveryState.HELD.value, DeliveryState.READY.value]}}
_TO_DECIDE: Final = dict.fromkeys(
    (
        "user_id",
        "event",
        "channel",
        "type",
        "title",
        "expires_at",
        "decision",
        "thing",
        "rank",
    ),
    1,
)


class Delivery(Document):
    """`decision`: what was decided last, and why, see traces.py. `thing`, `rank`: of what it
    tells which state, see collapse.py. `due_at`: when a HELD one is decided anew, or later while a
    worker has it in hand under `claim`. `digest`: the delivery in which a DIGESTED one went out.
    """

    user_id: str
    event: str
    channel: Channel
    type: NotificationType
    title: str
    body: str
    content: Any
    expires_at: datetime | None
    state: DeliveryState
    decision: dict[str, Any]
    thing: Thing | None = None
    rank: Rank | None = None
    due_at: datetime | None = None
    claim: PydanticObjectId | None = None
    digest: PydanticObjectId | None = None
    forget_at: datetime | None

    class Settings:
        name = "deliveries"
        indexes = (
            IndexModel([("user_id", 1), ("event", 1), ("channel", 1)], unique=True),
            IndexModel(
                [("user_id", 1), ("thing", 1), ("state", 1)],
                partialFilterExpression={"thing": {"$exists": True}},
            ),
            IndexModel([("due_at", 1)], partialFilterExpression=_HELD),
            IndexModel([("user_id", 1), ("due_at", 1)], partialFilterExpression=_HELD),
            IndexModel([("forget_at", 1)], expireAfterSeconds=0),
        )

    @classmethod
    async def there(cls, keys: Sequence[Key], session: Session) -> Set[Unique]:
        """Those that exist of these (user id, event key)."""
        if not keys:
            return frozenset()
        shown = {"_id": 0, "user_id": 1, "event": 1, "channel": 1}
        found = cls.get_pymongo_collection().find(_of_keys(keys), shown, session=session)
        return {(row["user_id"], row["event"], Channel(row["channel"])) async for row in found}

    @classmethod
    async def states_of(cls, keys: Collection[Key]) -> Sequence[tuple[Key, DeliveryState]]:
        """Where those of these (user id, event key) stand, on each channel."""
        shown = {"_id": 0, "user_id": 1, "event": 1, "state": 1}
        rows = cls.get_pymongo_collection().find(_of_keys(keys), shown)
        return [((row["user_id"], row["event"]), DeliveryState(row["state"])) async for row in rows]

    @classmethod
    async def waiting(cls, things: Sequence[Thing], session: Session) -> Mapping[Thing, list[Row]]:
        """What is to go out yet of these things, without what it says."""
        found: dict[Thing, list[Row]] = defaultdict(list)
        if things:
            which = ("user_id", "event", "channel", "thing", "rank", "state")
            rows = cls.get_pymongo_collection().find(
                states_of(things) | _OPEN,
                dict.fromkeys((*which, "decision.class"), 1),
                session=session,
            )
            async for row in rows:
                found[row["thing"]].append(row)
        return found

    @classmethod
    async def of_events(cls, user_id: str, events: Iterable[str]) -> Sequence[Row]:
        """Where those of these events stand, and what was decided."""
        these = {"user_id": user_id, "event": {"$in": list(events)}}
        shown = {"event": 1, "channel": 1, "state": 1, "decision": 1}
        rows = cls.get_pymongo_collection().find(these, shown)
        return [row async for row in rows]


class Held(BaseModel):
    """A HELD delivery, as far as it takes to decide it anew."""

    id: PydanticObjectId = Field(alias="_id")
    user_id: str
    event: str
    channel: Channel
    type: NotificationType
    title: str
    expires_at: datetime | None
    decision: dict[str, Any]
    thing: Thing | None = None
    rank: Rank | None = None

    @property
    def message_class(self) -> MessageClass:
        return MessageClass(self.decision["class"])

    @property
    def is_over_cap(self) -> bool:
        """Whether it is held for that."""
        return bool(self.decision["reason"] == Reason.FREQUENCY_CAP)

    @classmethod
    def due(cls, now: datetime, limit: int) -> AsyncIterable[Row]:
        """Those whose time has come and that nobody has in hand, the longest overdue first."""
        due = {"due_at": {"$lte": now}, **_HELD}
        found = Delivery.get_pymongo_collection().find(due, _TO_DECIDE)
        return found.sort("due_at").limit(limit)

    @classmethod
    async def still(cls, these: Sequence[Self], session: Session) -> list[Self]:
        """Those of them that still are; if one is superseded before the commit, all begins anew."""
        ids = {"_id": {"$in": [one.id for one in these]}, **_HELD}
        found = Delivery.get_pymongo_collection().find(ids, {"_id": 1}, session=session)
        held = {row["_id"] async for row in found}
        return [one for one in these if one.id in held]

    @classmethod
    async def over_cap(cls, user_ids: Iterable[str], limit: int, session: Session) -> list[Self]:
        """The next ones that these users' caps hold, due or not."""
        theirs = {"user_id": {"$in": list(set(user_ids))}, **_HELD}
        over = {"decision.reason": Reason.FREQUENCY_CAP.value}
        found = Delivery.get_pymongo_collection().find(theirs | over, _TO_DECIDE, session=session)
        rows = [row async for row in found.sort("due_at").limit(limit)]
        return [one for row in rows if (one := cls._read(row))]

    @classmethod
    def _read(cls, row: Row) -> Self | None:
        """None where another version wrote what we can't read: its own time will tell."""
        read: Self | None = None
        with suppress(ValidationError):
            read = cls.model_validate(row)
        return read


def _of_keys(keys: Collection[Key]) -> Mapping[str, Any]:
    return {
        "user_id": {"$in": list({user_id for user_id, _ in keys})},
        "event": {"$in": list({event for _, event in keys})},
    }


MODELS: list[type[Document]] = [Delivery]
