"""Notifications for tests: asked for over GraphQL, or put into the collection with any stamp."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from bson import ObjectId

from services.notifications.models import Notification
from services.shared.clock import SystemClock
from services.shared.events import Event, NotificationCreated
from services.shared.vocabulary import NotificationType
from services.users.preferences import TypeChange, Wishes
from tests.kit import Api, GraphQLFailed, House, Socket, Somebody

NODE = "id userId type title body content sentAt read readAt archived"
CREATE = f"""mutation Create($input: CreateNotificationInput!) {{
    createNotification(input: $input) {{
      notification {{ {NODE} }} decision {{ outcome reason until }} }} }}"""
PAGE = f"""query Page($first: Int, $after: String, $last: Int, $before: String,
    $unreadOnly: Boolean! = false, $types: [NotificationType!], $archived: Boolean! = false,
    $snoozed: Boolean! = false) {{
    notifications(first: $first, after: $after, last: $last, before: $before,
        unreadOnly: $unreadOnly, types: $types, archived: $archived,
        snoozed: $snoozed) {{
      edges {{ cursor node {{ {NODE} }} }}
      pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"""
READ = f"""mutation($id: ID!, $read: Boolean! = true) {{
    markNotificationRead(id: $id, read: $read) {{ {NODE} }} }}"""
READ_ALL = """mutation($upTo: String) {
    markAllNotificationsRead(upTo: $upTo) { marked unreadCount } }"""
ARCHIVE = f"""mutation($id: ID!, $archived: Boolean! = true) {{
    archiveNotification(id: $id, archived: $archived) {{ {NODE} }} }}"""
UNREAD = "query($types: [NotificationType!]) { unreadCount(types: $types) }"


class Wire:
    """Somebody whose questions all go over one websocket: quick enough for hundreds of them."""

    def __init__(self, somebody: Somebody, socket: Socket) -> None:
        self.somebody = somebody
        self.id = somebody.id
        self._socket = socket

    async def ask(self, document: str, **variables: Any) -> Any:
        """The answer's data. Raises GraphQLFailed."""
        [answer] = await self.ask_all(document, [variables])
        return answer

    async def ask_all(self, document: str, many: Iterable[dict[str, Any]]) -> list[Any]:
        """The same with each of these variables, all at once: 50 at most."""
        streams = [await self._socket.subscribe(document, **variables) for variables in many]
        answers: dict[str, Any] = {}
        errors: list[Any] = []
        running = {stream.id for stream in streams}
        while running:
            message = await self._socket.receive()
            if message["type"] == "complete":
                running.remove(message["id"])
            elif message["type"] == "error":
                running.remove(message["id"])
                errors += message["payload"]
            else:
                errors += message["payload"].get("errors", ())
                answers[message["id"]] = message["payload"]["data"]
        if errors:
            raise GraphQLFailed(errors)
        return [answers[stream.id] for stream in streams]


Asker = Wire | Api


@asynccontextmanager
async def wired(somebody: Somebody) -> AsyncIterator[Wire]:
    async with somebody.api.socket() as socket:
        yield Wire(somebody, socket)


async def customer(house: House) -> Somebody:
    """A customer whose inbox stays as a test fills it: no promotions, and so no welcome."""
    no_promotions = TypeChange(NotificationType.PROMOTION, False, ())
    return await house.somebody(preferences=Wishes(types=(no_promotions,)))


async def create(backend: Asker, user_id: str, content: Any = "Hello", **fields: Any) -> Any:
    """What createNotification answers; an ORDER_UPDATE if no other type is given."""
    fields = {"userId": user_id, "type": "ORDER_UPDATE", "content": content} | fields
    return (await backend.ask(CREATE, input=fields))["createNotification"]


async def page(reader: Asker, **arguments: Any) -> Any:
    return (await reader.ask(PAGE, **arguments))["notifications"]


async def nodes(reader: Asker, **arguments: Any) -> list[Any]:
    """The newest notifications."""
    return [edge["node"] for edge in (await page(reader, **arguments))["edges"]]


async def unread_count(reader: Asker, **arguments: Any) -> int:
    count: int = (await reader.ask(UNREAD, **arguments))["unreadCount"]
    return count


async def refused(asking: Any) -> GraphQLFailed:
    """The error that the answer must have."""
    try:
        answer = await asking
    except GraphQLFailed as failure:
        return failure
    raise AssertionError(f"this was not refused: {answer}")


def row(user_id: str, sent_at: datetime, **fields: Any) -> dict[str, Any]:
    """A notification as another writer would store it, with a stamp of the test's choice."""
    return {
        "_id": ObjectId(),
        "user_id": user_id,
        "event": uuid4().hex,
        "type": NotificationType.ORDER_UPDATE.value,
        "title": "By hand",
        "body": "",
        "content": "",
        "sent_at": sent_at,
        "expires_at": None,
        "read": False,
        "read_at": None,
        "archived": False,
        "product_ids": [],
    } | fields


async def store(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Put rows into the collection; their ids."""
    rows = list(rows)
    await Notification.get_pymongo_collection().insert_many(rows)
    return [str(one["_id"]) for one in rows]


def ago(seconds: float) -> datetime:
    return SystemClock().now() - timedelta(seconds=seconds)


def told(one: dict[str, Any]) -> Event:
    """The live event that tells of a row, as the one who stored it publishes it."""
    data = NotificationCreated(
        id=str(one["_id"]),
        user_id=one["user_id"],
        kind=NotificationType(one["type"]),
        title=one["title"],
        body=one["body"],
        content=one["content"],
        sent_at=one["sent_at"],
        expires_at=one["expires_at"],
    )
    return Event.of(data, time=one["sent_at"])
