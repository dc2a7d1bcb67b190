"""The shop's catalogue, as far as it takes to recommend and to choose an audience."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from beanie import Document
from pymongo import IndexModel, UpdateOne

from services.notifications.recommend import Product as KnownProduct
from services.shared.content import composed
from services.shared.events import ProductChanged
from services.shared.store import write_all


class Product(Document):
    """A product of the shop's catalogue; the id is the shop's own."""

    id: str  # type: ignore[assignment]
    name: str
    category: str
    changed_at: datetime

    class Settings:
        name = "products"
        indexes = (IndexModel([("category", 1), ("_id", 1)]),)

    @classmethod
    async def known(cls, product_ids: Iterable[str]) -> Mapping[str, KnownProduct]:
        rows = cls.find({"_id": {"$in": list(set(product_ids))}})
        return {row.id: KnownProduct(row.id, row.name, row.category) async for row in rows}

    @classmethod
    async def of_categories(cls, categories: Iterable[str], limit: int) -> list[str]:
        """The ids of products in any of these."""
        these = {"category": {"$in": list(categories)}}
        found = cls.get_pymongo_collection().find(these, {"_id": 1}).limit(limit)
        return [row["_id"] async for row in found]


async def keep_products(changes: Sequence[tuple[ProductChanged, datetime]]) -> None:
    """Keep what the catalogue says of products; an older word never replaces a newer one."""
    writes = [
        UpdateOne(
            {"_id": product.product_id, "changed_at": {"$not": {"$gt": at}}},
            {
                "$set": {
                    "name": composed(product.name),
                    "category": composed(product.category.strip()),
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


MODELS: list[type[Document]] = [Product]
