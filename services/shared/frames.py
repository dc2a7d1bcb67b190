"""AMQP's frames of what comes and goes by the thousand: deliveries, and hints to open screens.

The library makes some forty objects and two tasks of each delivery, and of each message that it
publishes a task, two futures and a write of its own: four times what it takes to store the
notification. So a connection of ours takes deliveries out of the stream before the library sees
them, and writes all hints of a batch at once. Everything else is the library's.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.channel import Channel
from pamqp.header import ContentHeader

from services.shared.log import get_logger

log = get_logger()

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END: Final = b"\xce"
_ALIVE: Final = struct.pack(">BHI", _HEARTBEAT, 0, 0) + _END
_DELIVER: Final = struct.pack(">HH", 60, 60)
_ACK: Final = struct.pack(">HH", 60, 80)
_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)
_head: Final = struct.Struct(">BHI")  # of a frame: its kind, its channel, the size of what follows
_content: Final = struct.Struct(">HHQH")  # class, weight, size of the body, which properties
_HAS_HEADERS: Final = 1 << 13
_BEFORE_HEADERS: Final = (1 << 15, 1 << 14)  # shortstr each: content type, content encoding
_CONTENT_TYPE_AND_MODE: Final = 1 << 15 | 1 << 12
_PERSISTENT: Final = b"\x02"


class Received:
    """A message that was delivered, to be acknowledged."""

    __slots__ = ("_properties", "body", "channel", "tag")

    def __init__(self, channel: AbstractChannel, tag: int, properties: bytes, body: bytes) -> None:
        self.channel = channel
        self._properties = properties
        self.tag = tag
        self.body = body

    @property
    def headers(self) -> dict[str, Any]:
        """None of them, if they can't be read: the message is judged by its body."""
        (flags,) = struct.unpack_from(">H", self._properties, 12)
        if not flags & _HAS_HEADERS or not self._has_entries(flags):
            return {}
        header = ContentHeader()
        try:
            header.unmarshal(self._properties)
        except (ValueError, OverflowError, struct.error) as error:
            log.warning("unreadable_headers", error=repr(error))
            return {}
        return header.properties.headers or {}

    def _has_entries(self, flags: int) -> bool:
        """Most clients send a table of headers that is empty."""
        place = _content.size
        for flag in _BEFORE_HEADERS:
            if flags & flag:
                place += 1 + self._properties[place]
        return bool(struct.unpack_from(">I", self._properties, place)[0])

    async def ack(self, multiple: bool = False) -> None:
        """Raises what amqp.FAULTS lists."""
        await self.channel.basic_ack(self.tag, multiple=multiple)


Taker = Callable[[Received], None]


class _Coming:
    """A channel whose deliveries are taken, and as much as has come of the next one."""

    __slots__ = ("_channel", "_parts", "_properties", "_size", "_tag", "_taker")

    def __init__(self, channel: AbstractChannel, taker: Taker) -> None:
        self._channel = channel
        self._taker = taker
        self._tag: int | None = None

    def takes(self, kind: int, payload: bytes) -> bool:
        """Whether the frame was of a delivery."""
        if kind == _METHOD and payload.startswith(_DELIVER):
            self._tag = struct.unpack_from(">Q", payload, 5 + payload[4])[0]
        elif self._tag is None:
            return False
        elif kind == _HEADER:
            self._properties, self._parts = payload, list[bytes]()
            (self._size,) = struct.unpack_from(">Q", payload, 4)
            self._end_if_whole()
        elif kind == _BODY:
            self._parts.append(payload)
            self._size -= len(payload)
            self._end_if_whole()
        else:
            return False
        return True

    def _end_if_whole(self) -> None:
        if self._size <= 0 and self._tag is not None:
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            tag, self._tag = self._tag, None
            self._taker(Received(self._channel, tag, self._properties, body))


class _Confirming:
    """A channel on which the confirms of `publish_all` are taken: RabbitMQ sends one for each."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def takes(self, kind: int, payload: bytes) -> bool:
        """Whether the frame was one of them. Others, and those of several, are the library's."""
        if kind != _METHOD or not payload.startswith(_ACK):
            return False
        tag, is_of_several = struct.unpack_from(">QB", payload, len(_ACK))
        confirms: object = self._channel.confirmations.get(tag)
        if is_of_several or not isinstance(confirms, _Confirms):
            return False
        del self._channel.confirmations[tag]
        confirms.set_result(None)
        return True


class Deliveries:
    """Takes deliveries and confirms of some channels out of what a connection receives."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        """`reader`: the library's, into which nothing was fed yet."""
        self._pass_on = reader.feed_data
        self._left = b""
        self._is_readable = True
        self._coming: dict[int, _Coming | _Confirming] = {}
        reader.feed_data = self._feed  # type: ignore[method-assign, assignment]

    def take(self, channel: AbstractChannel, taker: Taker) -> None:
        """From now on what the channel delivers goes to the taker."""
        self._coming[channel.number] = _Coming(channel, taker)

    def confirm(self, channel: AbstractChannel) -> None:
        """From now on confirms of what `publish_all` writes there are taken."""
        assert isinstance(channel, Channel)
        self._coming[channel.number] = _Confirming(channel)

    def _feed(self, data: bytes) -> None:
        """For what was taken the library is told that the broker lives: it listens for that."""
        if not self._is_readable:
            self._pass_on(data)
            return
        data, place = self._left + data if self._left else bytes(data), 0
        others: list[bytes] = []
        taken = False
        while len(data) - place >= 8:
            kind, channel, size = _head.unpack_from(data, place)
            end = place + 8 + size
            if kind not in (_METHOD, _HEADER, _BODY, _HEARTBEAT):
                self._is_readable = False  # it says so better than we
                break
            if end > len(data):
                break
            coming = self._coming.get(channel)
            if coming is not None and coming.takes(kind, data[place + 7 : end - 1]):
                taken = True
            else:
                others.append(data[place:end])
            place = end
        self._left = data[place:]
        if taken:
            others.append(_ALIVE)
        if not self._is_readable:
            others.append(self._left)
        if others:
            self._pass_on(b"".join(others))


class _Confirms:
    """Stands for the confirms of many messages where the library looks for a future of each."""

    def __init__(self, count: int, all_: asyncio.Future[None]) -> None:
        self._left = count
        self._all = all_

    def done(self) -> bool:
        return False

    def set_result(self, _: object) -> None:
        self._left -= 1
        if not self._left and not self._all.done():
            self._all.set_result(None)

    def set_exception(self, error: BaseException) -> None:
        if not self._all.done():
            self._all.set_exception(error)


class Outgoing(NamedTuple):
    """A message to publish. RabbitMQ routes it by its keys beyond the first, too."""

    keys: Sequence[str]
    content_type: str
    body: bytes


async def publish_all(
    channel: AbstractChannel, exchange: str, messages: Sequence[Outgoing]
) -> None:
    """Publish them in order; returns when the broker has confirmed all.

    They are persistent, and not mandatory: what no queue takes is confirmed, too. Raises what
    amqp.FAULTS lists; then nobody knows which of them have arrived.
    """
    assert isinstance(channel, Channel)
    most = channel.max_content_size
    frames: list[bytes] = []
    for message in messages:
        frames += _published(channel.number, exchange, message, most)
    confirmed = channel.create_future()
    confirms = _Confirms(len(messages), confirmed)
    async with channel.lock:
        first = channel.delivery_tag + 1
        channel.delivery_tag += len(messages)
        tags = range(first, first + len(messages))
        channel.confirmations |= dict.fromkeys(tags, cast("asyncio.Future[Any]", confirms))
        written = channel.create_future()
        try:
            await channel.write_queue.put(ChannelFrame(b"".join(frames), False, written))
        except BaseException:  # nothing was sent, and the broker counts only what is
            channel.delivery_tag -= len(messages)
            for tag in tags:
                del channel.confirmations[tag]
            raise
        await written
    await confirmed


def _published(channel: int, exchange: str, message: Outgoing, most: int) -> list[bytes]:
    """The frames of one message, its body in parts of at most so many bytes. The header CC names
    the routing keys beyond the first."""
    (first, *others), content_type, body = message
    method = b"".join((_PUBLISH, _short(exchange), _short(first), b"\0"))
    flags = _CONTENT_TYPE_AND_MODE | (_HAS_HEADERS if others else 0)
    headers = _carbon_copies(others) if others else b""
    properties = b"".join((_short(content_type), headers, _PERSISTENT))
    header = _content.pack(60, 0, len(body), flags) + properties
    frames = [*_frame(_METHOD, channel, method), *_frame(_HEADER, channel, header)]
    for start in range(0, len(body), most):
        frames += _frame(_BODY, channel, body[start : start + most])
    return frames


def _carbon_copies(keys: Sequence[str]) -> bytes:
    """The table of headers whose one entry is CC: an array of long strings."""
    listed = b"".join(b"S" + _sized(key.encode()) for key in keys)
    return _sized(b"\x02CCA" + _sized(listed))


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _frame(kind: int, channel: int, payload: bytes) -> tuple[bytes, bytes, bytes]:
    return _head.pack(kind, channel, len(payload)), payload, _END


def _short(text: str) -> bytes:
    """AMQP's shortstr. Raises ValueError beyond 255 bytes."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded
