"""What is told at once: the same bytes as each subscriber's own execution would make."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from graphql import parse
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.direct import DirectSocket
from gateway.hints import Hints
from gateway.idle import Gate
from gateway.live import Live
from gateway.news import News
from gateway.schema import make_schema
from gateway.shapes import Shape, Shapes
from services.notifications.cursor import Cursor
from services.notifications.hints import hints
from services.shared.clock import SystemClock
from services.shared.events import NotificationCreated
from services.shared.settings import Settings
from tests.kit import House, Socket, Stream, open_house, quick_settings, raw_socket
from tests.notices import Wire, ago, customer, row, store, told, wired
from tests.servers import PrivateMongod, until
from tests.test_live import answered

PLAIN = """subscription { notificationAdded { cursor node {
    id userId type title body content sentAt read readAt seen archived snoozedUntil expiresAt
    revision } } }"""
TITLES = "subscription { notificationAdded { node { title } } }"
DOCUMENTS: Sequence[tuple[str, dict[str, Any]]] = (
    (PLAIN, {}),
    ("subscription { notificationAdded { node { id } } }", {}),
    ("subscription { a: notificationAdded { b: cursor c: cursor node { d: id e: id } } }", {}),
    ("subscription { notificationAdded { __typename node { __typename userId title } } }", {}),
    (
        """subscription S($after: String) { notificationAdded(after: $after) { ...E } }
        fragment E on NotificationEdge { cursor node { ...N } }
        fragment N on Notification { id content sentAt }""",
        {},
    ),
    (
        """subscription($with: Boolean!) { notificationAdded {
        cursor node { id body @include(if: $with) title @skip(if: $with) } } }""",
        {"with": True},
    ),
    (
        """subscription($with: Boolean!) { notificationAdded {
        cursor node { id body @include(if: $with) title @skip(if: $with) } } }""",
        {"with": False},
    ),
    ("subscription { notificationAdded(types: [ORDER_UPDATE]) { node { id userId } } }", {}),
)
CONTENTS: Sequence[Any] = (
    "plain",
    '100 % off, %s, %(id)b: quotes " and \\ and \u2028 and 😀',
    {"title": "Sale", "nested": [1, 2.5, None, True, {"ä": "ö"}]},
    [],
)


@dataclass(eq=False)
class _Direct:
    """A socket that writes down what it is told to do."""

    name: str
    log: list[str]
    fails: bool = False
    holds_what_it_is_sent: bool = False
    is_free: bool = True

    def write(self, frame: bytes) -> None:
        if self.fails:
            raise ValueError("this socket is odd")
        self.is_free = not self.holds_what_it_is_sent
        head = 2 if frame[1] < 126 else 4 if frame[1] == 126 else 10
        self.log.append(f"{self.name}:{frame[head:].decode()}")

    def cut(self) -> None:
        self.log.append(f"{self.name} cut")


class _Reader(Hints):
    """One that always has something to say at once."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(1)
        self._log = log

    def tell(self, news: News, id: str, user_id: str) -> None:
        self._log.append(f"made for {user_id}")
        news.say(_Direct(user_id, self._log), b"sale")


@dataclass
class Screen:
    """One connection with all documents subscribed twice: as it is, and so that every event of the
    second is executed for it alone, since its answers tell their cost."""

    connection: ClientConnection
    streams: Sequence[tuple[Stream, Stream]]


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url)) as house:
        yield house


@pytest.fixture
async def ann(house: House) -> AsyncIterator[Wire]:
    async with wired(await house.somebody()) as ann:
        yield ann


@pytest.fixture
async def ben(house: House) -> AsyncIterator[Wire]:
    async with wired(await house.somebody()) as ben:
        yield ben


async def test_all_are_told_what_their_own_execution_would_tell(
    house: House, ann: Wire, ben: Wire
) -> None:
    async with AsyncExitStack() as stack:
        screens = {one.id: await _screen(stack, one) for one in (ann, ben)}
        for content in CONTENTS:
            sent_at = ago(0)
            rows = [row(id, sent_at, content=content) for id in screens]
            await store(rows)
            await house.runtime.bus.publish([told(one) for one in rows])
            for one in rows:
                screen = screens[one["user_id"]]
                received = await _received(screen)
                for at_once, executed in screen.streams:
                    assert _placed(received[at_once.id]) == _placed(received[executed.id])
                shown = received[screen.streams[0][0].id]["notificationAdded"]["node"]
                assert shown["id"] == str(one["_id"])
                assert shown["userId"] == one["user_id"]
                assert shown["content"] == content


# RFC 6455, 5.2: the length is told in a byte up to 125, in two more up to 65,535, else in eight.
@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536])
async def test_a_message_of_any_size_is_a_frame_as_the_library_makes_it(
    house: House, size: int
) -> None:
    ann = await customer(house)
    heard = bytearray()
    async with ann.api.socket() as socket:
        await socket.send({"id": "1", "type": "subscribe", "payload": {"query": TITLES}})
        await answered(socket)
        protocol = socket.connection.protocol
        protocol.receive_data = heard.extend  # type: ignore[method-assign, assignment]
        title = "x" * (size - len(_next("")))
        text = _next(title)
        assert len(text) == size
        await house.runtime.bus.publish([told(row(ann.id, ago(0), title=title))])
        frame = Frame(Opcode.TEXT, text).serialize(mask=False)
        await until(lambda: len(heard) >= len(frame))
        assert heard == frame


def test_what_many_are_told_is_made_once_for_all_of_them() -> None:
    shape, other = _shape(PLAIN), _shape("subscription { notificationAdded { cursor } }")
    made: list[Shape] = []
    news = _news()

    def make(shape: Shape, created: NotificationCreated) -> bytes:
        made.append(shape)
        return created.title.encode()

    for _ in range(3):
        assert news.template(shape, make) == b"By hand"
        assert news.template(other, make) == b"By hand"
    assert made == [shape, other]


def test_no_more_is_kept_of_it_than_a_few_operations_make() -> None:
    news = _news()
    shapes = [_shape(f"subscription {{ notificationAdded {{ a{n}: cursor }} }}") for n in range(50)]
    for shape in shapes:
        assert news.template(shape, lambda _, created: created.id.encode()) is not None
    assert len(news._templates) <= 20


def test_all_messages_are_made_before_the_first_is_sent() -> None:
    news, log = _news(), list[str]()
    for name in "abc":
        direct = _Direct(name, log)
        assert news.make_way(direct)
        news.say(direct, name.encode())
    assert log == []
    news.send()
    assert log == ["a:a", "b:b", "c:c"]
    news.send()
    assert len(log) == 3


def test_a_live_event_is_made_for_all_whom_it_reaches_and_then_sent() -> None:
    settings, log, now = Settings(_env_file=None), list[str](), ago(0)
    live = Live(None, SystemClock(), settings)  # type: ignore[arg-type]
    rows = [row(user, now, seen=False) for user in "ab"]
    for one in rows:
        live._waiting[one["user_id"]].add(_Reader(log))
    [event] = hints(rows, now)
    live._dispatch(event)
    assert log == ["made for a", "made for b", "a:sale", "b:sale"]


def test_a_socket_is_sent_one_message_before_it_is_asked_for_the_next() -> None:
    news, log = _news(), list[str]()
    direct = _Direct("slow", log, holds_what_it_is_sent=True)
    assert news.make_way(direct)
    news.say(direct, b"first")
    other = _Direct("other", log)
    news.say(other, b"second")
    assert not news.make_way(direct)
    assert log == ["slow:first"]
    news.send()
    assert log == ["slow:first", "other:second"]


def test_whose_socket_fails_is_cut_and_the_others_are_told() -> None:
    news, log = _news(), list[str]()
    for direct in (_Direct("odd", log, fails=True), _Direct("well", log)):
        news.say(direct, b"sale")
    news.send()
    assert log == ["odd cut", "well:sale"]


def test_what_has_a_mebibyte_is_sent_before_more_is_made() -> None:
    news, log = _news(), list[str]()
    for name in "abcd":
        news.say(_Direct(name, log), b"x" * 400_000)
    assert [entry[0] for entry in log] == ["a", "b", "c"]
    news.send()
    assert [entry[0] for entry in log] == ["a", "b", "c", "d"]


def test_one_document_is_one_shape_but_for_what_its_variables_show() -> None:
    document = parse(
        """subscription($after: String, $with: Boolean!) { notificationAdded(after: $after) {
        node { id @include(if: $with) } } }"""
    )
    shapes = Shapes()
    first = _shape_of(shapes, document, {"after": "one", "with": True})
    assert _shape_of(shapes, document, {"after": "two", "with": True}) is first
    assert _shape_of(shapes, document, {"after": "one", "with": False}) is not first


def _news() -> News:
    return News(told(row("ann", ago(0))).read(NotificationCreated))


def _next(title: str) -> bytes:
    """The message that tells it to who asked for TITLES."""
    data = {"notificationAdded": {"node": {"title": title}}}
    message = {"id": "1", "type": "next", "payload": {"data": data}}
    return json.dumps(message, separators=(",", ":")).encode()


async def _screen(stack: AsyncExitStack, somebody: Wire) -> Screen:
    api = somebody.somebody.api
    connection = await stack.enter_async_context(raw_socket(api.url))
    socket = Socket(connection)
    await socket.send({"type": "connection_init", "payload": api.headers})
    assert (await socket.receive())["type"] == "connection_ack"
    streams = []
    for number, (document, variables) in enumerate(DOCUMENTS):
        at_once = await socket.subscribe(document, **variables)
        executed = Stream(socket, f"own-{number}")
        payload = {"query": document, "variables": variables, "extensions": {"cost": True}}
        await socket.send({"id": executed.id, "type": "subscribe", "payload": payload})
        streams.append((at_once, executed))
    await answered(socket)
    return Screen(connection, streams)


async def _received(screen: Screen) -> dict[str, Any]:
    """What came to each stream, by its id."""
    received: dict[str, Any] = {}
    while len(received) < 2 * len(screen.streams):
        message = json.loads(await screen.connection.recv())
        assert message["type"] == "next", message
        is_own = message["id"].startswith("own-")
        assert ("extensions" in message["payload"]) is is_own
        received[message["id"]] = message["payload"]["data"]
    return received


def _placed(told: Any) -> Any:
    """With cursors' positions: what each has seen before depends on when it began."""
    if isinstance(told, dict):
        return {
            name: Cursor.decode(value).position if name in ("cursor", "b", "c") else _placed(value)
            for name, value in told.items()
        }
    return told


def _shape(document: str) -> Shape:
    return _shape_of(Shapes(), parse(document), {})


def _shape_of(shapes: Shapes, document: Any, variables: dict[str, Any]) -> Shape:
    schema = make_schema(Settings(_env_file=None))
    executor = schema.execution_context_class.build(
        schema._schema, document, raw_variable_values=variables
    )
    assert not isinstance(executor, list), executor
    return shapes.of(executor)


async def test_a_socket_is_free_while_it_is_open_and_nothing_waits() -> None:
    loop, connection, gate = asyncio.get_running_loop(), ServerProtocol(), Gate()
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        direct = DirectSocket(connection, gate, transport)
        was_free = [direct.is_free]  # it has not been opened yet
        connection.state = State.OPEN
        was_free.append(direct.is_free)
        gate.clear()
        was_free.append(direct.is_free)
        gate.set()
        connection.send_close()
        was_free.append(direct.is_free)
        connection.state = State.OPEN
        was_free.append(direct.is_free)
        transport.close()
        was_free.append(direct.is_free)
    assert was_free == [False, True, False, False, True, False]
