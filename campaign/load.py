"""The load: a shop's day in fast motion. Clients, readers and a prober, decided by a seed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from campaign.audit import Audit
from campaign.clients import Answer, Exchange, Gateways
from campaign.deeds import EXCHANGE, Backend, Deed, Producer
from campaign.environment import Endpoints
from campaign.journal import Attempt, Journal, Outcome, Scheduled
from campaign.mix import Mix
from campaign.past import give_a_past
from campaign.people import Cast, cast
from campaign.probe import Prober, recovery
from campaign.readers import Counter, Reader, Subscriber, Watcher
from campaign.steps import Steps
from tests.servers import until

PROBE_SECONDS: Final = 0.08
_AT_ONCE: Final = 48
_TRIES: Final = 4
_SETTLE_SECONDS: Final = 90.0
_QUIET_SECONDS: Final = 3.0
_FORMER_SECONDS: Final = 60.0
_READERS, _LEAVING, _STALLING = 40, 14, 4
_SCHEDULES: Final = (("* * * * *", "UTC"), ("* 2 * * *", "Europe/Vienna"))
_CREATE_SCHEDULE: Final = """mutation($input: ScheduleInput!) {
  createSchedule(input: $input) { id } }"""


class Load:
    """`rate`: attempts a second in all; `start`: what the services' clocks say now."""

    def __init__(
        self, endpoints: Endpoints, seed: int, journal: Journal, rate: float, start: datetime
    ) -> None:
        self._endpoints = endpoints
        self._seed = seed
        self._rate = rate
        self._journal = journal
        self._shift = start - datetime.now(UTC)
        journal.offset = self._shift.total_seconds()
        if abs(journal.offset) < 2:  # what it took to get here
            self._shift, journal.offset = timedelta(), 0.0
        self._random = random.Random(seed)
        self._gateways = Gateways(endpoints.gateways)
        self._exchange = Exchange(endpoints.rabbitmq_url, endpoints.settings)
        self._audit = Audit(endpoints.direct_rabbitmq_url, journal, endpoints.settings)
        self._tasks: list[asyncio.Task[None]] = []
        self._readers: list[Reader] = []
        self._running: set[asyncio.Task[None]] = set()
        self._faults: list[BaseException] = []
        self._prober: Prober | None = None
        self._mix: Mix | None = None

    @property
    def accepted(self) -> int:
        """Different events."""
        return len(self._journal.accepted)

    @property
    def refused(self) -> int:
        return self._journal.outcomes[Outcome.REFUSED]

    @property
    def indeterminate(self) -> int:
        return self._journal.outcomes[Outcome.INDETERMINATE]

    @property
    def prober(self) -> Prober:
        assert self._prober is not None, "prepare() first"
        return self._prober

    def is_well_since(self, healed_at: float) -> bool:
        """Whether what was accepted until then has arrived, and new events do on every path."""
        return recovery(self._journal.probes(healed_at - _FORMER_SECONDS), healed_at) is not None

    def now(self) -> datetime:
        """What the services' clocks say."""
        return datetime.now(UTC) + self._shift

    async def prepare(self, *, with_a_past: bool = False) -> None:
        """People, schedules and a catalogue, before anything is broken; then the readers.

        `with_a_past`: customers have done as much as a recommendation reads at most.
        """
        self._start(self._audit.keep())
        async with asyncio.timeout(30):
            await self._audit.declared.wait()
        people = await cast(self._endpoints, self._seed, self.now)
        for person in people.all:
            self._journal.note(person)
        await self._make_schedules(people)
        backend = Backend(people.backend.id, people.backend.token)
        steps = Steps(people, self._seed, self.attempt, self.now)
        self._mix = Mix(
            people,
            backend,
            self._seed,
            self._journal,
            self._gateways,
            self.perform,
            steps,
            self.now,
        )
        for deed in self._mix.catalogue():
            await self.perform(deed)
        if with_a_past:
            await give_a_past(self._endpoints, people, self._seed, self.now())
        probing = Producer("urn:campaign:prober")
        self._prober = Prober(
            people.probes, backend, probing, self.perform, self.now, self._journal, PROBE_SECONDS
        )
        self._open_eyes(people, self._prober)
        await until(lambda: all(reader.connected_at for reader in self._readers), 30)

    async def run(self) -> None:
        """Send until cancelled."""
        assert self._mix is not None, "prepare() first"
        self._journal.period("began")
        probing = asyncio.create_task(self.prober.run())
        try:
            while True:
                await asyncio.sleep(self._random.expovariate(self._rate))
                if len(self._running) >= _AT_ONCE:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._mix.one())
                self._running.add(task)
                task.add_done_callback(self._ended)
                if self._faults:
                    raise self._faults[0]
                if probing.done():
                    raise RuntimeError("the prober has ended")
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def attempt(self, deed: Deed, turn: int | None = None) -> Attempt:
        """Try once. `turn`: at which gateway; None: at any."""
        if turn is None:
            turn = self._random.randrange(len(self._gateways.urls))
        started = time.time()
        try:
            if deed.via == EXCHANGE:
                answer = await self._exchange.publish(deed.body, deed.routing_key)
            else:
                answer = await self._gateways.ask(turn, deed.token, deed.document, deed.variables)
        except asyncio.CancelledError:
            self._note(deed, Answer(Outcome.INDETERMINATE, "cancelled", {}), started)
            raise
        return self._note(deed, answer, started)

    async def perform(self, deed: Deed) -> Outcome:
        """Try, and where that is harmless try again elsewhere, until it is known what became."""
        turn = self._random.randrange(len(self._gateways.urls))
        outcome = Outcome.INDETERMINATE
        for number in range(_TRIES if deed.again else 1):
            if number:
                await asyncio.sleep(0.1 * 2**number)
            outcome = (await self.attempt(deed, turn + number)).outcome
            if outcome is not Outcome.INDETERMINATE:
                break
        return outcome

    async def stop(self) -> None:
        """Send no more, and let no reader dawdle."""
        self._journal.period("stopping")
        if self._running:
            await asyncio.wait(self._running, timeout=20)
        for task in tuple(self._running):
            task.cancel()
        if self._mix is not None:
            await self._mix.steps.finish()
        for reader in self._readers:
            reader.behave()

    async def settle(self) -> None:
        """Let all who read catch up, and end them. Raises what went wrong with one."""
        with suppress(AssertionError):
            await until(self._is_quiet, _SETTLE_SECONDS, every=0.25)
        self._journal.period("settled")
        ended = [task for task in self._tasks if task.done()]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._gateways.close()
        await self._exchange.close()
        self._journal.close()
        for task in ended:
            task.result()
            raise RuntimeError("a reader or the audit has ended before its time")

    def _note(self, deed: Deed, answer: Answer, started: float) -> Attempt:
        said: Any = answer.data.get("answer") or {}
        attempt = Attempt(
            kind=deed.kind,
            via=deed.via,
            key=deed.key,
            users=deed.users,
            type=deed.type,
            gist=deed.gist,
            expect=deed.expect,
            outcome=answer.outcome,
            code=answer.code,
            started=started,
            ended=time.time(),
            said=(said.get("decision") or said).get("outcome") or said.get("state", ""),
            id=(said.get("notification") or said.get("scheduled") or said).get("id", ""),
            due=deed.due,
        )
        self._journal.note(attempt)
        return attempt

    async def _make_schedules(self, people: Cast) -> None:
        for number, person in enumerate(people.schedules):
            cron, timezone = _SCHEDULES[number % len(_SCHEDULES)]
            data = {"title": f"Reminder {number}", "body": "Again.", "userIds": [person.id]}
            schedule = {
                "name": f"campaign {number}",
                "cron": cron,
                "timezone": timezone,
                "event": {"type": "promotion.announced", "data": data},
            }
            token = people.admin.token
            answer = await self._gateways.ask(0, token, _CREATE_SCHEDULE, {"input": schedule})
            assert answer.outcome is Outcome.OK, f"no schedule: {answer.code}"
            self._journal.note(
                Scheduled(
                    id=answer.data["createSchedule"]["id"],
                    user=person.id,
                    cron=cron,
                    timezone=timezone,
                    created=time.time(),
                )
            )

    def _open_eyes(self, people: Cast, prober: Prober) -> None:
        for number, person in enumerate(people.customers[:_READERS]):
            self._readers.append(
                Reader(
                    f"r{number}",
                    person,
                    self._gateways,
                    self._journal,
                    first=number,
                    seed=self._seed,
                    leaves=number < _LEAVING,
                    stalls=_LEAVING <= number < _LEAVING + _STALLING,
                )
            )
        for number, person in enumerate((*people.probes, *people.schedules)):
            self._readers.append(
                Reader(
                    f"{'p' if number < len(people.probes) else 's'}{number}",
                    person,
                    self._gateways,
                    self._journal,
                    first=number,
                    on_sight=prober.on_sight if number < len(people.probes) else None,
                )
            )
        others: list[Subscriber] = []
        for number, person in enumerate(people.customers[:4]):
            others += [
                Counter(f"c{number}", person, self._gateways, self._journal, number),
                Watcher(f"w{number}", person, self._gateways, self._journal, number),
            ]
        for subscriber in (*self._readers, *others):
            self._start(subscriber.follow())

    def _is_quiet(self) -> bool:
        """Nobody has seen anything for a while, nor has come back so lately that they may yet."""
        latest = max(reader.connected_at for reader in self._readers)
        still_since = max(self._journal.last_sight, latest)
        return time.time() - still_since > _QUIET_SECONDS and self._all_connected()

    def _all_connected(self) -> bool:
        return all(reader.connected for reader in self._readers)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._faults.append(error)
