"""Who is in an audience: a walk through all users in the order of their ids, in parts.

A part costs a few questions, each by an index and about no more users than its size, however many
the shop has. What users are and want is asked in the database's own words, what they did for those
who are left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from services.notifications.audience import Audience, Deeds
from services.notifications.catalogue import Product
from services.shared.errors import BadInput
from services.shared.settings import Settings
from services.shared.vocabulary import ActivityKind
from services.users.models import Activity, User
from services.users.traits import Names

_PRODUCTS_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Search:
    """Who is looked for: those of an audience who had registered at the instant `at`; what they did
    until then counts. `products`: the ids of those in its categories, as they were when it began.
    """

    audience: Audience
    at: datetime
    shop_timezone: str
    products: Mapping[Names, Sequence[str]]

    @classmethod
    async def of(cls, audience: Audience, at: datetime, settings: Settings, place: str) -> Self:
        """Raises BadInput for categories with too many products. `place`: the audience's path in
        the caller's input."""
        products: dict[Names, Sequence[str]] = {}
        most = settings.max_audience_products
        for name, deeds in (("bought", audience.bought), ("viewed", audience.viewed)):
            if deeds is None or deeds.categories is None or deeds.categories in products:
                continue
            found = await Product.of_categories(deeds.categories, most + 1)
            if len(found) > most:
                raise BadInput(
                    f"These categories have more than {most} products (MAX_AUDIENCE_PRODUCTS): "
                    "name fewer, or none for any product.",
                    f"{place}.{name}.categories",
                )
            products[deeds.categories] = found
        return cls(audience, at, settings.shop_timezone, products)


Find = Callable[[Search, str | None, int], Awaitable[tuple[list[str], str | None]]]


async def members(search: Search, after: str | None, size: int) -> tuple[list[str], str | None]:
    """The ids of those among the `size` next users behind `after` who are meant, in their order;
    and behind whom to go on, None where that was all."""
    audience, at = search.audience, search.at
    upto = await User.nth_behind(after, size)
    ids = await User.with_traits(audience, after, upto, at, search.shop_timezone)
    for deeds, kind in (
        (audience.bought, ActivityKind.PURCHASE),
        (audience.viewed, ActivityKind.VIEW),
    ):
        if deeds and ids:
            did = await _who_did(ids, kind, deeds, search)
            ids = [id for id in ids if id in did]
    if audience.never_bought and ids:
        buyers = await Activity.who(ids, None, at, ActivityKind.PURCHASE)
        ids = [id for id in ids if id not in buyers]
    if audience.inactive_days and ids:
        active = await Activity.who(ids, at - timedelta(days=audience.inactive_days), at)
        ids = [id for id in ids if id not in active]
    return ids, upto


async def _who_did(
    user_ids: Sequence[str], kind: ActivityKind, deeds: Deeds, search: Search
) -> set[str]:
    at = search.at
    since = at - timedelta(days=deeds.within_days)
    if deeds.categories is None:
        return await Activity.who(user_ids, since, at, kind)
    products = search.products[deeds.categories]
    did: set[str] = set()
    for start in range(0, len(products), _PRODUCTS_AT_ONCE):
        some = products[start : start + _PRODUCTS_AT_ONCE]
        did |= await Activity.who(user_ids, since, at, kind, some)
    return did
