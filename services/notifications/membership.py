"""Who is in an audience: a walk through all users in the order of their ids, in parts.

A part costs a few questions, each by an index and about no more users than its size, however many
the shop has. What users are and want is asked in the database's own words, what they did for those
who are left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from services.notifications.audience import Audience, Deeds
from services.notifications.catalogue import Product
from services.shared.vocabulary import ActivityKind
from services.users.models import Activity, User

Find = Callable[[Audience, str | None, int, datetime, str], Awaitable[tuple[list[str], str | None]]]
_PRODUCTS_AT_ONCE: Final = 10_000


async def members(
    audience: Audience, after: str | None, size: int, at: datetime, shop_timezone: str
) -> tuple[list[str], str | None]:
    """The ids of those among the `size` next users behind `after` who are in it, in their order;
    and behind whom to go on, None where that was all.

    They are who had registered at the instant `at`, and what they did until then counts.
    """
    upto = await User.nth_behind(after, size)
    ids = await User.with_traits(audience, after, upto, at, shop_timezone)
    for deeds, kind in (
        (audience.bought, ActivityKind.PURCHASE),
        (audience.viewed, ActivityKind.VIEW),
    ):
        if deeds and ids:
            did = await _who_did(ids, kind, deeds, at)
            ids = [id for id in ids if id in did]
    if audience.never_bought and ids:
        buyers = await Activity.who(ids, None, at, ActivityKind.PURCHASE)
        ids = [id for id in ids if id not in buyers]
    if audience.inactive_days and ids:
        active = await Activity.who(ids, at - timedelta(days=audience.inactive_days), at)
        ids = [id for id in ids if id not in active]
    return ids, upto


async def _who_did(
    user_ids: Sequence[str], kind: ActivityKind, deeds: Deeds, at: datetime
) -> set[str]:
    since = at - timedelta(days=deeds.within_days)
    if deeds.categories is None:
        return await Activity.who(user_ids, since, at, kind)
    products = await Product.of_categories(deeds.categories)
    did: set[str] = set()
    for start in range(0, len(products), _PRODUCTS_AT_ONCE):
        some = products[start : start + _PRODUCTS_AT_ONCE]
        did |= await Activity.who(user_ids, since, at, kind, some)
    return did
