"""The limit of the row `live`: the gateway's own server and driver with nothing in between.

It takes the same messages from the broker, makes each user's own message of them and sends it;
there is no GraphQL, no database, no resuming and nobody's preferences.
"""

from __future__ import annotations

import asyncio
import os
import socket
from uuid import uuid4

import aio_pika
import jwt
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bench.limits.ready import say_ready
from services.shared import loop
from services.shared.topology import EVERYBODY, LIVE

_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


class Sockets:
    def __init__(self, channel: aio_pika.abc.AbstractChannel, queue: aio_pika.abc.AbstractQueue):
        self._channel = channel
        self._queue = queue
        self._open: dict[str, WebSocket] = {}

    async def serve(self, socket: WebSocket) -> None:
        await socket.accept(subprotocol="graphql-transport-ws")
        init = await socket.receive_json()
        token = init["payload"]["Authorization"].removeprefix("Bearer ")
        secret = os.environ["JWT_SECRET"]
        user_id = jwt.decode(token, secret, algorithms=["HS256"], audience="tidings")["sub"]
        await socket.send_json({"type": "connection_ack"})
        await socket.receive_text()
        self._open[user_id] = socket
        await self._queue.bind(LIVE, user_id)
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            del self._open[user_id]

    async def tell(self) -> None:
        async with self._queue.iterator(no_ack=True) as messages:
            async for message in messages:
                data = _DECODER.decode(message.body)["data"]
                recipients = data.pop("recipients", None) or [data]
                for recipient in recipients:
                    if socket := self._open.get(recipient["userId"]):
                        await socket.send_text(_text(data, recipient))


def _text(data: dict[str, object], recipient: dict[str, object]) -> str:
    node = data | recipient
    edge = {"cursor": node["id"], "node": node}
    payload = {"data": {"notificationAdded": edge}}
    return _ENCODER.encode({"id": "1", "type": "next", "payload": payload}).decode()


async def main() -> None:
    connection = await aio_pika.connect(os.environ["RABBITMQ_URL"])
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"bench.{uuid4().hex}", exclusive=True)
        await queue.bind(LIVE, EVERYBODY)
        sockets = Sockets(channel, queue)
        app = Starlette(routes=[WebSocketRoute("/graphql", sockets.serve)])
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=int(os.environ["PORT"]),
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        server = _Server(config)
        telling = asyncio.create_task(sockets.tell())
        serving = asyncio.create_task(server.serve())
        await asyncio.wait([telling, serving], return_when=asyncio.FIRST_COMPLETED)
        telling.cancel()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say_ready()


if __name__ == "__main__":
    loop.run(main())
