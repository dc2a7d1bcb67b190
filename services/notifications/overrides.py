"""The texts that an admin changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Self

from beanie import Document
from pydantic import ValidationError

from services.notifications.templates import Text
from services.shared.log import get_logger

log = get_logger()

_COUNTS: Final[Mapping[str, Any]] = {"title": {"$ne": None}}


class TextOverride(Document):
    """What is said instead of a shipped text, or in a locale that has none; in Liquid.

    `version` rises with each change, and goes on when the text is reset: then title and body are
    null. The id is `<name>/<locale>`.
    """

    id: str  # type: ignore[assignment]
    name: str
    locale: str
    title: str | None
    body: str | None
    version: int
    changed_at: datetime

    class Settings:
        name = "text_overrides"

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.locale

    @property
    def text(self) -> Text | None:
        """None when it was reset."""
        return Text(self.title, self.body) if self.title and self.body is not None else None

    @classmethod
    async def of(cls, name: str, locale: str) -> Self | None:
        return await cls.get(f"{name}/{locale}")

    @classmethod
    async def all_by_id(cls) -> Sequence[Self]:
        """Those that were reset, too."""
        return await cls.find_all().sort("_id").to_list()

    @classmethod
    async def readable(cls, ids: Iterable[str]) -> Sequence[Self]:
        """Those of them that count; without any that another version wrote, and we can't read."""
        found = []
        async for row in cls.get_pymongo_collection().find({"_id": {"$in": list(ids)}, **_COUNTS}):
            try:
                found.append(cls.model_validate(row))
            except ValidationError:
                log.error("text_unreadable", id=row["_id"])
        return found

    @classmethod
    async def versions(cls) -> Mapping[str, int]:
        """The versions of those that count, by id."""
        rows = cls.get_pymongo_collection().find(dict(_COUNTS), {"version": 1})
        return {row["_id"]: row["version"] async for row in rows}


MODELS: list[type[Document]] = [TextOverride]
