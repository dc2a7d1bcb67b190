"""A new notification for an open subscription, as bytes that are ready but for whose it is."""

from __future__ import annotations

from typing import Final

from strawberry import ID

from gateway.encoding import encode
from gateway.news import AtOnce, News
from gateway.notification_types import Notification, NotificationEdge
from gateway.shapes import Shape, hole
from services.shared.events import NotificationCreated

_CURSOR: Final = hole("cursor")
_ID: Final = hole("id")
_USER_ID: Final = hole("user")
_HOLES: Final = {b"cursor": _CURSOR, b"id": _ID, b"user": _USER_ID}


class Telling:
    """To one subscriber."""

    __slots__ = ("_at_once", "_user_id")

    def __init__(self, at_once: AtOnce, user_id: str) -> None:
        self._at_once = at_once
        self._user_id = encode(user_id)[1:-1]

    def ready(self, news: News) -> bytes | None:
        """None where it can't be told at once."""
        shape = self._at_once.shape
        if shape is None or not news.make_way(self._at_once.direct):
            return None
        return news.template(shape, _template)

    def tell(self, news: News, template: bytes, id: str, cursor: bytes) -> None:
        """`id`: hex digits; `cursor`: base64: neither has anything to be escaped."""
        at_once = self._at_once
        values = {
            b"start": at_once.start,
            b"cursor": cursor,
            b"id": id.encode(),
            b"user": self._user_id,
        }
        news.say(at_once.direct, template % values)


def _template(shape: Shape, created: NotificationCreated) -> bytes | None:
    node = Notification(
        id=ID(_ID),
        user_id=ID(_USER_ID),
        type=created.kind,
        title=created.title,
        body=created.body,
        content=created.content,
        sent_at=created.sent_at,
        read=created.read_at is not None,
        read_at=created.read_at,
        seen=created.seen,
        archived=created.archived,
        snoozed_until=created.snoozed_until,
        expires_at=created.expires_at,
        revision=created.revision,
    )
    payload = shape.template(NotificationEdge(cursor=_CURSOR, node=node), _HOLES)
    return b"%%(start)b%b}" % payload if payload is not None else None
