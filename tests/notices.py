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
from services.shared.vocabulary import NotificationType
from services.users.preferences import TypeChange
from tests.kit import GraphQLFailed, House, Somebody, Socket

NODE = "id userId type title body content sentAt read readAt archived"
CREATE = f"""mutation Create($input: CreateNotificationInput!) {{ createNotification(input: $input) {{
    notification {{ {NODE} }} decision {{ outcome reason until }} }} }}"""
PAGE = f"""query Page($first: Int, $after: String, $last: Int, $before: String,
    $unreadOnly: Boolean! = false, $types: [NotificationType!], $archived: Boolean! = false) {{
    notifications(first: $first, after: $after, last: $last, before: $before,
        unreadOnly: $unreadOnly, types: $types, archived: $archived) {{
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
    """GraphQL over one websocket: what `Api.ask` is, for tests that ask hundreds of times."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def ask(self, document: str, **variables: Any) -> Any:
        """The answer's data. Raises GraphQLFailed."""
        stream = await self._socket.subscribe(document, **variables)
        data = await stream.next()
        assert await self._socket.receive() == {"id": stream.id, "type": "complete"}
        return data


@asynccontextmanager
async def wire(somebody: Somebody) -> AsyncIterator[Wire]:
    async with somebody.api.socket() as socket:
        yield Wire(socket)


async def customer(house: House) -> Somebody:
    """A customer whose inbox stays as a test fills it: no promotions, and so no welcome."""
    return await house.somebody(preferences=(TypeChange(NotificationType.PROMOTION, False, ()),))


async def create(
    backend: Somebody | Wire, user_id: str, content: Any = "Hello", **fields: Any
) -> Any:
    """What createNotification answers; an ORDER_UPDATE if no other type is given."""
    asker = backend if isinstance(backend, Wire) else backend.api
    fields = {"userId": user_id, "type": "ORDER_UPDATE", "content": content} | fields
    return (await asker.ask(CREATE, input=fields))["createNotification"]


async def page(reader: Somebody | Wire, **arguments: Any) -> Any:
    asker = reader if isinstance(reader, Wire) else reader.api
    return (await asker.ask(PAGE, **arguments))["notifications"]


async def nodes(reader: Somebody | Wire, **arguments: Any) -> list[Any]:
    """The newest notifications."""
    return [edge["node"] for edge in (await page(reader, **arguments))["edges"]]


async def unread_count(reader: Somebody | Wire, **arguments: Any) -> int:
    asker = reader if isinstance(reader, Wire) else reader.api
    count: int = (await asker.ask(UNREAD, **arguments))["unreadCount"]
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
