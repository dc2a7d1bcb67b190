"""What an admin does with texts, and the words that everybody is addressed in meanwhile.

A process keeps the overrides in memory and looks every TEXT_CACHE_SECONDS whether one has changed:
so soon all processes say what was saved, and no notification waits for its words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from services.notifications.engine import Engine, Limits, TemplateFailed
from services.notifications.locales import Reader, canonical, is_known
from services.notifications.overrides import TextOverride
from services.notifications.samples import SAMPLES, TIMEZONE
from services.notifications.templates import (
    LONGEST_BODY,
    LONGEST_TITLE,
    Key,
    Text,
    Words,
    shipped,
)
from services.shared.clock import Clock
from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput, Conflict
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.tasks import end_if_cancelled
from services.shared.worker import when_back
from services.users.recipients import Named

log = get_logger()


_PARTS: Final = (("title", LONGEST_TITLE), ("body", LONGEST_BODY))


@dataclass(frozen=True, slots=True)
class Entry:
    """A text as it stands: an override, or what is shipped. Version 0: it was never overridden."""

    name: str
    locale: str
    text: Text
    overridden: bool
    version: int
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a text shall be, in Liquid. The paths of its errors start with `input.`."""

    name: str
    locale: str
    text: Text

    @property
    def key(self) -> Key:
        return self.name, self.locale


class Texts:
    """`read` must have been called before the first words; `keep_reading` goes on with it."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._seconds = settings.text_cache_seconds
        self._most = settings.max_text_overrides
        self._shop_zone = settings.shop_timezone
        self._engine = Engine(
            Limits(
                source_bytes=settings.text_source_bytes,
                output_bytes=settings.text_output_bytes,
                loops=settings.text_loop_iterations,
                steps=settings.text_steps,
            )
        )
        self._reading = asyncio.Lock()
        self._kept: Mapping[str, TextOverride] = {}
        self._overrides: Mapping[Key, Text] = {}
        self._failed: set[Key] = set()

    def words(self, user: Named) -> Words:
        """How this user is addressed now."""
        reader = Reader(user.name, user.locale, user.timezone or self._shop_zone)
        return Words(reader, self._overrides, self._engine, self._report)

    async def read(self) -> None:
        """Read what has changed since the last time."""
        async with self._reading:
            versions = await TextOverride.versions()
            kept = {id: one for id, one in self._kept.items() if versions.get(id) == one.version}
            changed = versions.keys() - kept.keys()
            if changed:
                kept |= {one.id: one for one in await TextOverride.readable(changed)}
            if kept != self._kept:
                self._kept = kept
                self._overrides = {one.key: one.text for one in kept.values() if one.text}
                self._failed.clear()

    async def keep_reading(self) -> None:
        while True:
            end_if_cancelled()
            await asyncio.sleep(self._seconds)
            await when_back(self.read, "the texts")

    async def entries(self) -> Sequence[Entry]:
        """All texts, by name and locale."""
        stored = {one.key: one for one in await TextOverride.all_by_id()}
        overridden = {key for key, one in stored.items() if one.text}
        return [_entry(key, stored.get(key)) for key in sorted(overridden | shipped().keys())]

    def preview(self, wish: Wish) -> Text:
        """The text with its sample data. Raises BadInput for whatever is wrong with it."""
        return self._tried(_checked(wish))

    async def save(self, wish: Wish, version: int | None) -> Entry:
        """Override a text. `version`, when given, must be the current one (Conflict).

        Raises BadInput for whatever is wrong with it.
        """
        wish = _checked(wish)
        self._tried(wish)
        current = await TextOverride.of(*wish.key)
        known = current.version if current else 0
        if version is not None and version != known:
            raise Conflict(
                f"The text has version {known}, not {version}: read it again and repeat the change."
            )
        if (current is None or not current.text) and (
            len(await TextOverride.versions()) >= self._most
        ):
            raise BadInput(
                f"{self._most} texts are overridden, the most (MAX_TEXT_OVERRIDES): reset one "
                "first.",
                "input.name",
            )
        return _entry(wish.key, await self._replace(wish.key, known, wish.text))

    async def reset(self, name: str, locale: str) -> bool:
        """Say what is shipped again; whether there was an override. Raises BadInput."""
        key = _checked_key(name, locale, "")
        current = await TextOverride.of(*key)
        if current is None or not current.text:
            return False
        await self._replace(key, current.version, None)
        return True

    async def _replace(self, key: Key, known: int, text: Text | None) -> TextOverride:
        """The next version after the known one; 0: there is none yet. Raises Conflict."""
        name, locale = key
        changes = {
            "name": name,
            "locale": locale,
            "title": text.title if text else None,
            "body": text.body if text else None,
            "changed_at": self._clock.now(),
        }
        row = None
        with suppress(DuplicateKeyError):
            row = await TextOverride.get_pymongo_collection().find_one_and_update(
                {"_id": f"{name}/{locale}", "version": known},
                {"$set": changes, "$inc": {"version": 1}},
                upsert=known == 0,
                return_document=ReturnDocument.AFTER,
            )
        if row is None:
            raise Conflict("The text was just changed: read it again and repeat the change.")
        await self.read()
        stored: TextOverride = TextOverride.model_validate(row)
        return stored

    def _tried(self, wish: Wish) -> Text:
        """What the wish says with the sample data. Raises BadInput."""
        sample, reader = SAMPLES[wish.name], Reader("", wish.locale, TIMEZONE)
        written = {}
        for part, most in _PARTS:
            try:
                template = self._engine.template(getattr(wish.text, part))
                template.check(sample)
                written[part] = template.render(sample, reader)
            except TemplateFailed as failure:
                raise BadInput(str(failure), f"input.{part}") from failure
            if len(written[part]) > most:
                raise BadInput(
                    f"With the sample data it has {len(written[part])} characters; {most} is the "
                    "most.",
                    f"input.{part}",
                )
        if not written["title"].strip():
            raise BadInput("With the sample data the title is empty.", "input.title")
        return Text(**written)

    def _report(self, key: Key, failure: TemplateFailed) -> None:
        """Once for each override as it is: many readers may have it."""
        if key not in self._failed:
            self._failed.add(key)
            cause = type(failure.__cause__ or failure).__name__
            log.warning("text_failed", text="/".join(key), line=failure.line, error=cause)


def _checked(wish: Wish) -> Wish:
    """The wish with its text in NFC, without blanks around it. Raises BadInput."""
    name, locale = _checked_key(wish.name, wish.locale, "input.")
    for part, _ in _PARTS:
        try:
            check_content(getattr(wish.text, part), part)
        except ContentRefused as error:
            raise BadInput(str(error), f"input.{part}") from error
    title, body = composed(wish.text.title).strip(), composed(wish.text.body).strip()
    return Wish(name, locale, Text(title, body))


def _checked_key(name: str, locale: str, place: str) -> Key:
    if name not in SAMPLES:
        known = ", ".join(sorted(SAMPLES))
        raise BadInput(f"There is no such text; known are {known}.", f"{place}name")
    if not is_known(canonical(locale)):
        raise BadInput(
            "A locale is a language, perhaps with script and region: en, de-AT, zh-Hant-TW.",
            f"{place}locale",
        )
    return name, canonical(locale)


def _entry(key: Key, override: TextOverride | None) -> Entry:
    text = override.text if override else None
    return Entry(
        *key,
        text=text or shipped()[key],
        overridden=text is not None,
        version=override.version if override else 0,
        changed_at=override.changed_at if override else None,
    )
