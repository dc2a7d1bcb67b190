"""Readers of notificationAdded, that come back with their last cursor whatever happens to them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from campaign.clients import Gateways
from campaign.deeds import gist, version_in
from campaign.journal import Closed, Counted, Journal, Outcome, Person, Sight, Subscribed
from services.notifications.cursor import Cursor

ADDED: Final = """subscription($after: String) {
  notificationAdded(after: $after) { cursor node { id sentAt content } } }"""
CHANGED: Final = "subscription { notificationChanged { kind unreadCount notification { id } } }"
COUNT: Final = "subscription { unreadCount }"
PAGE: Final = """query($first: Int, $after: String, $archived: Boolean! = false) {
  notifications(first: $first, after: $after, archived: $archived) {
    edges { cursor node { id sentAt content } } pageInfo { hasNextPage endCursor } } }"""

_OPEN_SECONDS: Final = 3.0
_SILENCE_SECONDS: Final = 1.0  # then it asks whether anybody is there
_PATIENCE_SECONDS: Final = 3.0  # for an answer to that
_BACK_OFF: Final = (0.05, 0.1, 0.2, 0.4)
_CURSOR_START: Final = 64  # position and floor; then come the ids, up to a thousand characters
_FAULTS: Final = (OSError, TimeoutError, WebSocketException, ValueError, KeyError, EOFError)


class Resync(Exception):
    """The cursor is too old: read the list again."""


class Refused(Exception):
    """The subscription ended with an error."""


class Subscriber:
    """One subscription, kept up on any of the gateways until it is cancelled."""

    document = ""

    def __init__(
        self, name: str, person: Person, gateways: Gateways, journal: Journal, first: int = 0
    ) -> None:
        self.name = name
        self.person = person
        self.connected = False
        self.connected_at = 0.0
        """When it was, the last time; 0 for never."""
        self._gateways = gateways
        self._journal = journal
        self._turn = first
        self._connections = 0

    async def follow(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._prepare()
                await self._listen()
                why = "completed"
            except ConnectionClosed as error:
                why = str(error.rcvd.code if error.rcvd else "cut")
            except Resync:
                why = "RESYNC"
                await self._read_again()
            except Refused as error:
                why = str(error)
            except _FAULTS as error:
                why = type(error).__name__
            self.connected = False
            self._note(Closed(reader=self.name, connection=self._connections, why=why, at=_now()))
            self._turn += 1
            failures = failures + 1 if time.monotonic() - began < 1 else 0
            await asyncio.sleep(_BACK_OFF[min(failures, len(_BACK_OFF) - 1)])

    def variables(self) -> dict[str, Any]:
        return {}

    async def on_data(self, data: dict[str, Any]) -> None:
        raise NotImplementedError

    def timeout(self) -> float:
        """How long to stay, seconds."""
        return float("inf")

    async def _prepare(self) -> None:
        """What has to be known before a connection."""

    async def _read_again(self) -> None:
        """After a RESYNC."""

    def _note(self, record: Closed | Sight | Subscribed | Counted) -> None:
        self._journal.note(record)

    async def _listen(self) -> None:
        url = self._gateways.urls[self._turn % len(self._gateways.urls)].replace("http", "ws", 1)
        self._connections += 1
        leave_at = time.monotonic() + self.timeout()
        async with connect(
            url,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            proxy=None,
            compression=None,
            open_timeout=_OPEN_SECONDS,
            close_timeout=0.5,
            ping_interval=None,
            max_queue=4,
            max_size=None,
        ) as socket:
            authorization = {"authorization": f"Bearer {self.person.token}"}
            await _send(socket, {"type": "connection_init", "payload": authorization})
            await _expect_ack(socket)
            payload = {"query": self.document, "variables": self.variables()}
            await _send(socket, {"id": "1", "type": "subscribe", "payload": payload})
            self.connected, self.connected_at = True, _now()
            while time.monotonic() < leave_at:
                message = await _hear(socket, min(leave_at, time.monotonic() + 3600))
                if message is None:
                    continue
                if message["type"] == "next":
                    if message["payload"].get("errors"):
                        _raise(message["payload"]["errors"])
                    await self.on_data(message["payload"]["data"])
                elif message["type"] == "error":
                    _raise(message["payload"])
                elif message["type"] == "complete":
                    return


class Reader(Subscriber):
    """Reads all that is new to one user. Some go away now and then, some stop reading for a while.

    `leaves`, `stalls`: whether it does so; `seed` decides when.
    """

    document = ADDED

    def __init__(
        self,
        name: str,
        person: Person,
        gateways: Gateways,
        journal: Journal,
        *,
        first: int = 0,
        seed: int = 0,
        leaves: bool = False,
        stalls: bool = False,
        on_sight: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        super().__init__(name, person, gateways, journal, first)
        self.stalls = stalls
        self._behave = asyncio.Event()
        self._leaves = leaves
        self._on_sight = on_sight
        self._random = random.Random(f"{seed} {name}")
        self._cursor: str | None = None
        self._stall_at = self._next_stall()

    @property
    def well_behaved(self) -> bool:
        return self._behave.is_set()

    def behave(self) -> None:
        """Neither leave nor stall from now on."""
        self._behave.set()

    def variables(self) -> dict[str, Any]:
        return {"after": self._cursor}

    def timeout(self) -> float:
        return self._random.expovariate(1 / 15) if self._leaves and not self.well_behaved else 1e9

    async def on_data(self, data: dict[str, Any]) -> None:
        edge = data["notificationAdded"]
        self._saw(edge, self._connections)
        content = edge["node"].get("content")
        if isinstance(content, dict) and "orderId" in content:
            self._journal.seen.add(content["orderId"])
        if self._on_sight is not None:
            self._on_sight(edge["node"])
        if self.stalls and not self.well_behaved and time.monotonic() > self._stall_at:
            seconds = self._random.uniform(10, 18)  # pings are waited for for 20
            with suppress(TimeoutError):
                await asyncio.wait_for(self._behave.wait(), seconds)
            self._stall_at = self._next_stall()

    def _next_stall(self) -> float:
        return time.monotonic() + self._random.uniform(5, 40)

    def _saw(self, edge: dict[str, Any], connection: int) -> None:
        node = edge["node"]
        self._cursor = edge["cursor"]
        self._note(
            Sight(
                reader=self.name,
                user=self.person.id,
                id=node["id"],
                sent=_seconds(node["sentAt"]),
                connection=connection,
                at=_now(),
                cursor=edge["cursor"][:_CURSOR_START],
                gist=gist(node["content"]),
                version=version_in(node["content"]),
            )
        )

    async def _prepare(self) -> None:
        """The first time, begin behind what the list shows."""
        if self._connections and self._leaves and not self.well_behaved:
            await asyncio.sleep(self._random.expovariate(1 / 3))
        if self._cursor is not None:
            return
        newest = await self._page(1, None, archived=False)
        self._cursor, base = Cursor(0, bytes(12), 0).encode(), 0.0
        for edge in newest["edges"]:
            self._cursor, base = edge["cursor"], _seconds(edge["node"]["sentAt"])
        started = Subscribed(reader=self.name, user=self.person.id, base=base, at=_now())
        self._note(started)

    async def _read_again(self) -> None:
        """Read both lists to their end, and begin anew behind the newest of the one shown."""
        with suppress(Refused, *_FAULTS):
            edges: list[dict[str, Any]] = []
            for archived in (False, True):
                after: str | None = None
                while True:
                    page = await self._page(100, after, archived)
                    edges += [edge | {"archived": archived} for edge in page["edges"]]
                    after = page["pageInfo"]["endCursor"]
                    if not page["pageInfo"]["hasNextPage"]:
                        break
            newest = next((edge["cursor"] for edge in edges if not edge["archived"]), self._cursor)
            for edge in edges:
                self._saw(edge, -1)
            self._cursor = newest

    async def _page(self, first: int, after: str | None, archived: bool) -> Any:
        variables = {"first": first, "after": after, "archived": archived}
        answer = await self._gateways.ask(self._turn, self.person.token, PAGE, variables)
        if answer.outcome is not Outcome.OK:
            raise Refused(f"page {answer.code}")
        return answer.data["notifications"]


class Counter(Subscriber):
    """Is told one user's unread count."""

    document = COUNT

    async def on_data(self, data: dict[str, Any]) -> None:
        self._note(Counted(user=self.person.id, count=data["unreadCount"], at=_now()))


class Watcher(Subscriber):
    """Is told what happens to one user's notifications; there is no promise to check."""

    document = CHANGED

    async def on_data(self, data: dict[str, Any]) -> None:
        return


async def _send(socket: ClientConnection, message: object) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        await socket.send(json.dumps(message))


async def _expect_ack(socket: ClientConnection) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        message = json.loads(await socket.recv())
    if message["type"] != "connection_ack":
        raise Refused(f"no ack but {message['type']}")


async def _hear(socket: ClientConnection, until: float) -> Any:
    """The next message; None when it is late. Asks a silent gateway, and gives one up."""
    with suppress(TimeoutError):
        async with asyncio.timeout(min(_SILENCE_SECONDS, max(until - time.monotonic(), 0.01))):
            return json.loads(await socket.recv())
    if time.monotonic() >= until:
        return None
    try:
        await _send(socket, {"type": "ping"})
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return json.loads(await socket.recv())
    except TimeoutError:
        socket.transport.abort()
        raise


def _raise(errors: list[dict[str, Any]]) -> None:
    code = str(errors[0].get("extensions", {}).get("code", "NONE"))
    raise Resync if code == "RESYNC" else Refused(code)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _now() -> float:
    return time.time()
