"""The house that is going to be broken: its servers, its processes, and the links between them.

Every process that ends is started again at once, as compose or systemd would.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import psutil
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from campaign.audit import QUEUE as AUDIT
from campaign.broker import BROKER_FAULTS, Broker
from campaign.environment import (
    DATABASE,
    SECRET,
    Endpoints,
    environment,
    shared_settings,
    through,
)
from campaign.process import CONTROL
from campaign.proxy import HOST, Proxy
from campaign.service_process import Sample, ServiceProcess
from services.shared.events import QUEUES
from services.shared.settings import Settings
from services.shared.topology import queue_name, retry_queue_name
from services.shared.vocabulary import ScheduledState
from tests.servers import PrivateMongod, PrivateRabbitMQ, free_port, until

KINDS: Final = (
    "gateway",
    "gateway",
    "notifications",
    "notifications",
    "scheduler",
    "scheduler",
    "users",
)
_DATABASE_FAULTS: Final = (PyMongoError,)
# Rows that are still to be worked on. What is held for caps may wait longer than a campaign.
_WAITS: Final[Mapping[str, Mapping[str, Any]]] = {
    "outbox": {},
    "scheduled_notifications": {"state": ScheduledState.WAITING.value},
    "broadcasts": {"is_open": True},
    "broadcast_chunks": {},
}
_START_SECONDS: Final = 90.0
_FIRED, _ABOUT_TO_FIRE = 3.0, 25.0
_RESTART_SECONDS: Final = 0.1


@dataclass(frozen=True)
class WorldFacts:
    """What the world saw of its processes."""

    start: Mapping[str, Sample]
    """By process: memory once warm, the rest before the first client came."""
    ends: Mapping[str, Sequence[Sample]]
    """Of each incarnation when it was told to end; of the last one, after everything was quiet."""


@dataclass(frozen=True)
class Backlog:
    """What waits: by queue, what no consumer has in hand, and by collection."""

    queues: Mapping[str, int]
    rows: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.queues.values()) + sum(self.rows.values())

    @property
    def places(self) -> Mapping[str, int]:
        """Where something of the product's waits."""
        every = {**self.queues, **self.rows}
        return {name: count for name, count in every.items() if count and name != AUDIT}


class World:
    """`async with World(folder, offset) as world`: everything is up, and goes down at the end."""

    def __init__(self, folder: Path, clock_offset: float, control: str | None = None) -> None:
        self.folder = folder.resolve()
        self.clock_offset = clock_offset
        self.control = control
        self.mongod = PrivateMongod(self.folder / "mongod")
        self.rabbitmq = PrivateRabbitMQ(self.folder / "rabbitmq")
        self.broker = Broker(self.rabbitmq)
        self.processes: dict[str, ServiceProcess] = {}
        self.shop_link = Proxy("shop-rabbitmq", self.rabbitmq.port)
        self.unexpected_exits: list[str] = []
        self.start_samples: dict[str, Sample] = {}
        self.endpoints: Endpoints
        self._stack = AsyncExitStack()
        self._closing = False
        self._supervisors: list[asyncio.Task[None]] = []
        self._client: AsyncMongoClient[dict[str, Any]]

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._stack.enter_async_context(self.rabbitmq.epmd())
        self._stack.push_async_callback(self.mongod.stop)
        self._stack.push_async_callback(self.rabbitmq.end)
        await asyncio.gather(self.mongod.start(), self.rabbitmq.start())
        self._client = AsyncMongoClient(self.mongod.url, timeoutMS=5000)
        self._stack.push_async_callback(self._client.close)
        await self._open_proxy(self.shop_link)
        for position, kind in enumerate(KINDS):
            count = KINDS[: position + 1].count(kind)
            name = f"{kind}-{count}" if KINDS.count(kind) > 1 else kind
            await self._add(name, kind)
        self.endpoints = self._endpoints()
        self._stack.push_async_callback(self.end_processes)
        for process in self.processes.values():
            self._supervisors.append(asyncio.create_task(self._supervise(process)))
        await until(self.is_up, _START_SECONDS, every=0.25)

    async def _add(self, name: str, kind: str) -> None:
        process = ServiceProcess(name, kind, self.folder)
        links = {"mongodb": _port(self.mongod.url), "rabbitmq": self.rabbitmq.port}
        if kind == "gateway":
            process.port = free_port()
            links["clients"] = process.port
        for link, upstream in links.items():
            process.links[link] = Proxy(f"{name}-{link}", upstream)
            await self._open_proxy(process.links[link])
        self.processes[name] = process

    async def _open_proxy(self, proxy: Proxy) -> None:
        await proxy.start()
        self._stack.push_async_callback(proxy.close)

    def _endpoints(self) -> Endpoints:
        gateways = [process for process in self.processes.values() if process.kind == "gateway"]
        values: dict[str, Any] = {
            name.lower(): json.loads(value) if value.startswith("[") else value
            for name, value in self._variables().items()
        }
        return Endpoints(
            gateways=[f"http://{HOST}:{one.links['clients'].port}/graphql" for one in gateways],
            rabbitmq_url=through(self.rabbitmq.url, self.shop_link),
            direct_rabbitmq_url=self.rabbitmq.url,
            mongodb_url=self.mongod.url,
            database=DATABASE,
            jwt_secret=SECRET,
            settings=Settings(_env_file=None, **values),
        )

    def _variables(self) -> dict[str, str]:
        return shared_settings(self.mongod.url, self.rabbitmq.url)

    def _environment(self, process: ServiceProcess) -> dict[str, str]:
        control = {CONTROL: self.control} if self.control else {}
        return environment(process, self._variables(), self.clock_offset) | control

    async def _supervise(self, process: ServiceProcess) -> None:
        while not self._closing:
            code = await process.run(self._environment(process))
            if not process.explains(code):
                lived = time.monotonic() - process.started_at
                words = " | ".join(process.stderr.read_text(errors="replace").splitlines()[-4:])
                self.unexpected_exits.append(
                    f"{process.name} ended with {code} after {lived:.1f} s: {words[-1500:]}"
                )
            await asyncio.sleep(_RESTART_SECONDS)

    async def end_processes(self) -> None:
        """For good, with SIGTERM. One that is just being started is ended when it is there."""
        self._closing = True
        supervising = asyncio.gather(*self._supervisors)
        while not supervising.done():
            await asyncio.gather(*(process.end() for process in self.processes.values()))
            await asyncio.wait({supervising}, timeout=0.1)
        await supervising

    @property
    def restarts(self) -> Mapping[str, int]:
        return {name: one.incarnation - 1 for name, one in self.processes.items()}

    @property
    def links(self) -> dict[str, Proxy]:
        """Every link, by name."""
        proxies = [link for one in self.processes.values() for link in one.links.values()]
        return {proxy.name: proxy for proxy in [self.shop_link, *proxies]}

    async def is_up(self) -> bool:
        """Whether gateways are ready and every queue has its consumers."""
        async with httpx.AsyncClient(timeout=3, trust_env=False, verify=False) as client:
            for process in self.processes.values():
                if process.port:
                    try:
                        answer = await client.get(f"http://{HOST}:{process.port}/readyz")
                    except httpx.HTTPError:
                        return False
                    if answer.status_code != 200:
                        return False
        with suppress(*BROKER_FAULTS):
            for name in QUEUES:
                wanted = sum(one.kind == name for one in self.processes.values())
                if await self.broker.consumers(queue_name(name)) != wanted:
                    return False
            return all(one.is_alive for one in self.processes.values())
        return False

    async def backlog(self) -> Backlog:
        """What waits now, by the broker's and the database's own count. Raises when one is away."""
        settings = self.endpoints.settings
        names = [queue_name(name) for name in QUEUES]
        names += [retry_queue_name(name, w) for name in QUEUES for w in settings.retry_waits]
        names.append(AUDIT)
        queues = await self.broker.waiting(names)
        database = self._client[DATABASE]
        async with asyncio.timeout(5):
            rows = {name: await database[name].count_documents(_WAITS[name]) for name in _WAITS}
        return Backlog(queues, rows)

    async def quiet(self, timeout: float) -> bool:
        """Whether nothing waits any more, for a second, before `timeout` seconds are over."""
        deadline = time.monotonic() + timeout
        still = 0
        while time.monotonic() < deadline and still < 3:
            with suppress(*BROKER_FAULTS, *_DATABASE_FAULTS):
                still = still + 1 if not (await self.backlog()).total else 0
            await asyncio.sleep(0.5)
        return still >= 3

    async def between_fires(self) -> None:
        """Return when no schedule is about to fire, by the services' clock, nor has just fired."""

        def is_between() -> bool:
            return _FIRED < (time.time() + self.clock_offset) % 60 < 60 - _ABOUT_TO_FIRE

        await until(is_between, 60, every=0.5)

    async def take_samples(self) -> dict[str, Sample]:
        return {name: await one.sample() for name, one in self.processes.items()}

    async def remember_start(self) -> None:
        self.start_samples = await self.take_samples()

    async def remember_memory(self) -> None:
        """Its memory after it was used for the first time; the rest of the start stays."""
        for name, sample in (await self.take_samples()).items():
            self.start_samples[name] = replace(self.start_samples[name], rss=sample.rss)

    async def facts(self) -> WorldFacts:
        """Taken now, at the end."""
        for server in (self.mongod, self.rabbitmq):
            self.look_after(server)
        last = await self.take_samples()
        ends = {name: [*one.at_end, last[name]] for name, one in self.processes.items()}
        return WorldFacts(start=self.start_samples, ends=ends)

    def look_after(self, server: PrivateMongod | PrivateRabbitMQ) -> None:
        """Before it is broken: it has not ended by itself."""
        if not psutil.pid_exists(server.pid):
            self.unexpected_exits.append(f"{type(server).__name__} had ended by itself")


def _port(url: str) -> int:
    found = re.search(r":(\d+)/", url)
    assert found is not None, "a URL without a port"
    return int(found[1])
