"""What customers of the campaign's shop did before it began."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

from pymongo import AsyncMongoClient

from campaign.environment import Endpoints
from campaign.mix import PRODUCTS
from campaign.people import Cast
from services.shared.vocabulary import ActivityKind


async def give_a_past(endpoints: Endpoints, people: Cast, seed: int, now: datetime) -> None:
    """What the customers did in the weeks before: RECOMMENDATION_ACTS activities.

    So that what is read for a recommendation does not grow while memory is watched.
    """
    chance = random.Random(seed)
    rows = [
        {
            "event": f"urn:campaign:past {number}",
            "user_id": chance.choice(people.customers).id,
            "product_id": f"product-{chance.randrange(PRODUCTS)}",
            "kind": chance.choice([*ActivityKind]).value,
            "at": now - timedelta(minutes=number),
        }
        for number in range(endpoints.settings.recommendation_acts)
    ]
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(endpoints.mongodb_url)
    try:
        await client[endpoints.database]["activities"].insert_many(rows)
    finally:
        await client.close()
