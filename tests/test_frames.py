"""AMQP's frames past the library: whatever pieces they come in, and whatever stands among them."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import aiormq
import pytest
from aio_pika.exceptions import AMQPError
from aiormq.channel import Channel as LibraryChannel
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from services.shared.amqp import Connection, close, connect
from services.shared.frames import Deliveries, Outgoing, Received, publish_all
from services.shared.settings import Settings
from tests.servers import PrivateRabbitMQ, until

SETTINGS = Settings(_env_file=None)


def to(key: str, body: bytes) -> Outgoing:
    return Outgoing([key], "application/json", body)


async def an_inbox(
    connection: Connection, received: list[Received]
) -> tuple[str, aio_pika.abc.AbstractChannel]:
    """A queue of its own, whose deliveries are taken; its name and its channel."""
    channel = await connection.channel()
    queue = await channel.declare_queue(f"frames.{uuid4().hex}", exclusive=True)
    underlay = await channel.get_underlay_channel()
    connection.deliveries.take(underlay, received.append)

    async def unheard(_: object) -> None:
        raise AssertionError("the library has heard of it")

    await underlay.basic_consume(queue.name, unheard)
    return queue.name, channel


async def test_what_is_published_at_once_comes_in_order_and_whole(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    connection = await connect(rabbitmq.url, SETTINGS)
    received: list[Received] = []
    name, channel = await an_inbox(connection, received)
    underlay = await channel.get_underlay_channel()
    bodies = [b"", b"x", b"y" * 131_063, b"z" * 500_000, *(b"%d" % n for n in range(500))]
    await publish_all(underlay, "", [to(name, body) for body in bodies])
    await until(lambda: len(received) == len(bodies))
    assert [one.body for one in received] == bodies
    assert {str(one.headers) for one in received} == {"{}"}
    await received[-1].ack(multiple=True)
    await channel.default_exchange.publish(
        aio_pika.Message(b"more", headers={"x-so": 3}, content_encoding="utf-8"), name
    )
    await until(lambda: len(received) > len(bodies))
    assert (received[-1].body, received[-1].headers) == (b"more", {"x-so": 3})
    await close(connection)


async def test_confirms_are_counted_beside_those_that_the_library_waits_for(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    connection = await connect(rabbitmq.url, SETTINGS)
    received: list[Received] = []
    name, _ = await an_inbox(connection, received)
    publishing = await connection.channel()
    underlay = await publishing.get_underlay_channel()
    assert isinstance(underlay, LibraryChannel)
    connection.deliveries.confirm(underlay)
    count = 200

    async def one(n: int) -> None:
        await publishing.default_exchange.publish(aio_pika.Message(b"%d" % n), name)

    async def many(n: int) -> None:
        await publish_all(underlay, "", [to(name, b"%d" % n)] * 3)

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(n) for n in range(count) for work in (one, many)))
    await until(lambda: len(received) == 4 * count)
    # What no queue takes is confirmed one by one.
    await publish_all(underlay, "", [to(uuid4().hex, b"")] * count)
    assert not underlay.confirmations
    with pytest.raises(AMQPError):
        await publish_all(underlay, uuid4().hex, [to("a", b"1"), to("b", b"2")])
    await close(connection)


async def test_who_publishes_to_an_exchange_that_is_gone_is_told(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    connection = await connect(rabbitmq.url, SETTINGS)
    channel = await connection.channel()
    underlay = await channel.get_underlay_channel()
    async with asyncio.timeout(5):
        with pytest.raises(AMQPError):
            await publish_all(underlay, uuid4().hex, [to("a", b"1"), to("b", b"2")])
    await close(connection)


async def test_confirms_that_come_after_who_waited_for_them_has_left_harm_nobody(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    connection = await connect(rabbitmq.url, SETTINGS)
    received: list[Received] = []
    name, channel = await an_inbox(connection, received)
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)
    writer = connection._socket._writer
    assert writer is not None
    assert isinstance(writer.transport, asyncio.Transport)
    writer.transport.pause_reading()
    leaving = asyncio.create_task(publish_all(underlay, "", [to(name, b"1")]))
    await until(lambda: underlay.confirmations)
    async with underlay.lock:  # which is held until all is written
        leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    writer.transport.resume_reading()
    async with asyncio.timeout(5):
        await publish_all(underlay, "", [to(name, b"2"), to(name, b"3")])
    await until(lambda: len(received) == 3)
    assert [one.body for one in received] == [b"1", b"2", b"3"]
    assert not underlay.confirmations
    await close(connection)


async def test_what_was_cancelled_before_it_was_written_is_not_counted(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    connection = await connect(rabbitmq.url, SETTINGS)
    received: list[Received] = []
    name, channel = await an_inbox(connection, received)
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)
    queue, underlay.write_queue = underlay.write_queue, asyncio.Queue(1)
    underlay.write_queue.put_nowait(None)
    leaving = asyncio.create_task(publish_all(underlay, "", [to(name, b"1")]))
    await until(lambda: underlay.confirmations)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    underlay.write_queue = queue
    async with asyncio.timeout(5):
        await publish_all(underlay, "", [to(name, b"2")])
    await until(lambda: received)
    assert [one.body for one in received] == [b"2"]
    assert not underlay.confirmations
    await close(connection)


class Channel:
    number = 7


def a_delivery(tag: int, body: bytes, part: int) -> bytes:
    written: list[commands.Basic.Deliver | ContentHeader | ContentBody] = [
        commands.Basic.Deliver("tag", tag, False, "", "key"),
        ContentHeader(0, len(body), commands.Basic.Properties(headers={"n": tag})),
        *(ContentBody(body[place : place + part]) for place in range(0, len(body), part)),
    ]
    return b"".join(frame.marshal(one, 7) for one in written)


@pytest.mark.parametrize("seed", range(20))
async def test_in_whatever_pieces_deliveries_come_each_is_taken_and_the_rest_passed_on(
    seed: int,
) -> None:
    chance, received, others = random.Random(seed), list[Received](), list[bytes]()
    reader = asyncio.StreamReader()
    passed_on = bytearray()
    reader.feed_data = passed_on.extend  # type: ignore[method-assign, assignment]
    deliveries = Deliveries(reader)
    deliveries.take(Channel(), received.append)  # type: ignore[arg-type]
    bodies = [chance.randbytes(chance.choice((0, 1, 50, 3000))) for _ in range(30)]
    stream = b""
    for tag, body in enumerate(bodies, 1):
        stream += a_delivery(tag, body, part=1000)
        other = chance.choice(
            (frame.marshal(Heartbeat(), 0), frame.marshal(commands.Basic.QosOk(), 7), b"")
        )
        others.append(other)
        stream += other
    while stream:
        length = chance.choice((1, 3, 8, 100, 5000))
        reader.feed_data(stream[:length])
        stream = stream[length:]
    assert [(one.tag, one.body, one.headers) for one in received] == [
        (tag, body, {"n": tag}) for tag, body in enumerate(bodies, 1)
    ]
    alive = frame.marshal(Heartbeat(), 0)
    assert bytes(passed_on).replace(alive, b"") == b"".join(others).replace(alive, b"")
    assert alive in passed_on  # or the library would take a busy broker for a dead one


async def test_headers_that_cannot_be_read_are_none() -> None:
    header = ContentHeader(0, 1, commands.Basic.Properties(headers={"when": datetime.now(UTC)}))
    properties = bytearray(header.marshal())
    properties[-8:] = (2**62).to_bytes(8)  # a year that no calendar has
    assert Received(Channel(), 1, bytes(properties), b"x").headers == {}  # type: ignore[arg-type]


async def test_what_is_no_amqp_is_passed_on_for_the_library_to_refuse() -> None:
    reader = asyncio.StreamReader()
    Deliveries(reader)
    reader.feed_data(b"HTTP/1.1 400 Bad")
    reader.feed_data(b" Request\r\n")
    assert await reader.readexactly(26) == b"HTTP/1.1 400 Bad Request\r\n"
