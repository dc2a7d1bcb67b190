"""The words of a notification: title and body from what happened, for the one who reads it. Pure.

What is shipped lies in `texts/<locale>/<name>.liquid`: a line that is the title, and below it the
body. An admin may override each text in any locale; docs/texts.md has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

from msgspec import Struct

from services.notifications.engine import Engine, Limits, TemplateFailed
from services.notifications.locales import Reader, fallback
from services.notifications.recommend import Recommendation
from services.notifications.samples import ORDER_STATUSES, OTHER_STATUS
from services.notifications.scope import Known
from services.shared.content import composed
from services.shared.events import OrderStatusChanged, PromotionAnnounced, UserRegistered
from services.shared.vocabulary import NotificationType

LONGEST_TITLE: Final = 500
LONGEST_BODY: Final = 5000
_OURS: Final = Engine(Limits(source_bytes=2**16, output_bytes=2**20, loops=1000, steps=10_000))

Key = tuple[str, str]  # of a text: its name, its locale


class Text(Struct, frozen=True):
    title: str
    body: str


def _ignore(key: Key, failure: TemplateFailed) -> None:
    pass


class Words(Struct, frozen=True):
    """How one reader is addressed: in the first locale that they fall back to and that has the
    text, by its override there or as it is shipped.

    An override that fails is reported, and what comes next is said instead: what is shipped in its
    locale, or in the next ones. `overrides` are Liquid.
    """

    reader: Reader = Reader()
    overrides: Mapping[Key, Text] = {}
    engine: Engine = _OURS
    report: Callable[[Key, TemplateFailed], None] = _ignore

    def say(self, name: str, variables: Mapping[str, Any]) -> Text:
        for locale in fallback(self.reader.locale):
            if override := self.overrides.get((name, locale)):
                try:
                    return render(self.engine, override, self._known(variables), self.reader)
                except TemplateFailed as failure:
                    self.report((name, locale), failure)
            if text := shipped().get((name, locale)):
                return render(_OURS, text, self._known(variables), self.reader)
        raise LookupError(f"{name} is not shipped in English")

    def _known(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"user": Known(name=self.reader.name), **variables}


ENGLISH: Final = Words()


def render(engine: Engine, text: Text, variables: Mapping[str, Any], reader: Reader) -> Text:
    """The text for this reader, clipped to what a notification holds. Raises TemplateFailed."""
    title = engine.template(text.title).render(variables, reader)
    if not title.strip():
        raise TemplateFailed("the title is empty")
    return _clipped(title, engine.template(text.body).render(variables, reader))


@cache
def shipped() -> Mapping[Key, Text]:
    """The texts that come with the project, as Liquid."""
    texts = {}
    for folder in resources.files(__package__).joinpath("texts").iterdir():
        for file in folder.iterdir():
            title, _, body = file.read_text("utf-8").partition("\n")
            name = file.name.removesuffix(".liquid")
            texts[name, folder.name] = Text(title.strip(), body.strip())
    return texts


def order_text(order: OrderStatusChanged, words: Words = ENGLISH) -> Text:
    status = composed(order.status)
    kind = status.lower() if status.lower() in ORDER_STATUSES else OTHER_STATUS
    known = Known(
        id=order.order_id, status=status, version=order.version, details=composed(order.details)
    )
    return words.say(f"order.{kind}", {"order": known})


def promotion_variables(promotion: PromotionAnnounced) -> Mapping[str, Any]:
    known = Known(title=composed(promotion.title), body=composed(promotion.body))
    return {"promotion": known}


def welcome_text(user: UserRegistered, words: Words = ENGLISH) -> Text:
    return words.say("welcome", {"user": Known(name=user.name)})


def recommendation_text(recommendations: Sequence[Recommendation], words: Words = ENGLISH) -> Text:
    return words.say("recommendation", {"products": [_product(one) for one in recommendations]})


def digest_text(titles: Sequence[str], words: Words = ENGLISH) -> Text:
    """Several notifications in one."""
    notifications = [Known(title=title) for title in titles]
    return words.say("digest", {"notifications": notifications})


def content_text(
    type_: NotificationType, content: Any, title: str | None, words: Words = ENGLISH
) -> Text:
    """Title and body as given, else as the content's own `title` and `body`, else the type's."""
    own = {"body": content} if isinstance(content, str) else content
    title = title or _text_at(own, "title")
    body = _text_at(own, "body")
    if title and body:
        return _clipped(title, body)
    default = words.say(f"created.{type_.value}", {})
    return _clipped(title or default.title, body or default.body)


def _product(one: Recommendation) -> Known:
    what, other = one.why or (None, "")
    return Known(name=one.name, reason=one.reason, why=what, other=other)


def _text_at(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    return value if isinstance(value, str) else None


def _clipped(title: str, body: str) -> Text:
    return Text(title[:LONGEST_TITLE], body[:LONGEST_BODY])
