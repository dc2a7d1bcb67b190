"""Customers who get marketing on other channels, too, and what goes out to them there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from services.notifications.announcing import Announcing
from services.notifications.collapse import Collapse, Rank
from services.notifications.deliveries import Delivery
from services.notifications.drafts import Announcement, Draft
from services.notifications.ledgers import CapLedger
from services.notifications.releasing import Releasing
from services.notifications.templates import Text
from services.shared.clock import Clock
from services.shared.store import Store
from services.shared.vocabulary import Channel, DeliveryState, NotificationType
from services.users.models import User
from services.users.preferences import ChannelChange, TypeChange, Wishes
from services.users.quiet_hours import QuietChange
from tests.kit import House, Somebody

MARKETING = (NotificationType.PROMOTION, NotificationType.RECOMMENDATION)


def switched(*on: Channel, off: Sequence[Channel] = ()) -> tuple[TypeChange, ...]:
    """Marketing on these channels, and not on those."""
    changes = (
        *(ChannelChange(one, True) for one in on),
        *(ChannelChange(one, False) for one in off),
    )
    return tuple(TypeChange(type_, True, changes) for type_ in MARKETING)


async def reached_by(
    house: House, *on: Channel, off: Sequence[Channel] = (), quiet: Sequence[QuietChange] = ()
) -> Somebody:
    """A customer who gets marketing on these channels, and not on those."""
    wishes = Wishes(switched(*on, off=off), tuple(quiet))
    return await house.somebody(preferences=wishes)


async def switch(house: House, user_id: str, *wishes: TypeChange, **others: Any) -> None:
    """What somebody wants from now on."""
    await house.runtime.choosing.update_preferences(user_id, Wishes(wishes, **others), None)


def offer(user_id: str, event: str = "", **fields: Any) -> Draft:
    """A promotion for somebody, of an event of its own."""
    event = event or f"urn:shop {uuid4().hex}"
    fields = {"type": NotificationType.PROMOTION, "content": event} | fields
    return Draft(user_id, event, text=Text("Sale", event), **fields)


def state(user_id: str, n: int, at: datetime, key: str = "cart") -> Draft:
    """The n-th state of a thing."""
    event = f"urn:shop {key} {n}"
    return offer(user_id, event, collapse=Collapse(key, Rank.of(n, at, event)))


def announcer(
    house: House, clock: Clock | None = None, store: Store | None = None, **settings: Any
) -> Announcing:
    """A worker with these settings."""
    runtime = house.runtime
    return Announcing(
        store or runtime.store,
        runtime.outbox,
        runtime.bus,
        clock or runtime.clock,
        runtime.settings.model_copy(update=settings),
    )


def releaser(
    house: House, clock: Clock | None = None, store: Store | None = None, **settings: Any
) -> Releasing:
    """A worker with these settings."""
    runtime = house.runtime
    changed = runtime.settings.model_copy(update=settings)
    return Releasing(store or runtime.store, runtime.texts, clock or runtime.clock, changed)


async def announce(announcing: Announcing, *drafts: Draft) -> Sequence[Announcement]:
    return await announcing.announce(drafts, await User.by_ids({one.user_id for one in drafts}))


async def deliveries(user_id: str, **which: Any) -> list[Delivery]:
    """Those of a user, as they were made."""
    return await Delivery.find({"user_id": user_id, **which}).sort("_id").to_list()


async def states(user_id: str, **which: Any) -> list[DeliveryState]:
    return [one.state for one in await deliveries(user_id, **which)]


async def spent(user_id: str) -> list[tuple[str, Channel]]:
    """What the user's ledger holds."""
    ledger = await CapLedger.get(user_id)
    return [(one["event"], Channel(one["channel"])) for one in (ledger.spent if ledger else [])]
