"""What is done next: chance decides, from a seed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from campaign.clients import Answer, Gateways
from campaign.deeds import (
    EXCHANGE,
    ORDER,
    POISONS,
    PROMOTION,
    RECOMMENDATION,
    Backend,
    Deed,
    Producer,
    poison,
    poisonous,
    recommendations,
    version_in,
)
from campaign.journal import Change, Expect, Journal, Mark, Outcome, Person, Walk
from campaign.parcels import Parcels
from campaign.people import Cast
from campaign.readers import PAGE
from campaign.steps import Steps
from services.shared.vocabulary import ActivityKind

STATUSES: Final = ("placed", "paid", "packed", "shipped", "delivered", "refunded", "on the moon")
WEIGHTS: Final = {
    "order": 20,
    "straight_order": 16,
    "move": 8,
    "promotion": 4,
    "promotion_to_all": 0.2,
    "broadcast": 0.5,
    "straight_promotion": 4,
    "product": 2,
    "create": 10,
    "create_again": 8,
    "big": 2,
    "later": 1.5,
    "recommend": 1.5,
    "track": 4,
    "activity": 5,
    "prefer": 4,
    "read": 6,
    "read_all": 1,
    "archive": 3,
    "walk": 2,
    "duplicate": 5,
    "conflict": 0.5,
    "poison": 1.5,
}
PRODUCTS, CATEGORIES = 40, 5
_BIG: Final = 30_000
_PAGES, _PAGE_SIZE = 4, 25
_SETTLED_SECONDS: Final = 2.0

_PREFER: Final = """mutation($input: PreferencesInput!) {
  updatePreferences(input: $input) { version } }"""
_PREFERENCES: Final = "query { preferences { version } }"
_READ: Final = """mutation($id: ID!, $value: Boolean!) {
  markNotificationRead(id: $id, read: $value) { id } }"""
_ARCHIVE: Final = """mutation($id: ID!, $value: Boolean!) {
  archiveNotification(id: $id, archived: $value) { id } }"""
_READ_ALL: Final = "mutation { markAllNotificationsRead { marked unreadCount } }"


class Mix:
    def __init__(
        self,
        people: Cast,
        backend: Backend,
        seed: int,
        journal: Journal,
        gateways: Gateways,
        perform: Callable[[Deed], Awaitable[Outcome]],
        steps: Steps,
        now: Callable[[], datetime],
    ) -> None:
        self.steps = steps
        self._people = people
        self._backend = backend
        self._journal = journal
        self._gateways = gateways
        self._perform = perform
        self._now = now
        self._random = random.Random(f"mix {seed}")
        self._producers = [Producer(f"urn:campaign:shop:{n}") for n in range(3)]
        self._number = 0
        self._lately: deque[Deed] = deque(maxlen=200)
        self._told: deque[tuple[float, Deed]] = deque(maxlen=400)
        self._versions: dict[str, int] = {}
        self._busy: set[str] = set()
        self._parcels = Parcels(people.customers, backend, self._producers, self._random, now)

    def catalogue(self) -> Iterator[Deed]:
        """The products that are there from the beginning."""
        for n in range(PRODUCTS):
            yield self._backend.product(f"catalogue-{n}", f"product-{n}", f"c{n % CATEGORIES}")

    async def one(self) -> None:
        """Do one thing."""
        [name] = self._random.choices([*WEIGHTS], [*WEIGHTS.values()])
        doing: Callable[[str], Any] = getattr(self, f"_{name}")
        made = doing(self._tag())
        if made is None:
            return
        if not isinstance(made, Deed):
            await made
            return
        if made.again and made.expect is Expect.OK:
            self._lately.append(made)
        if await self._perform(made) is Outcome.OK and made.expect is Expect.OK and made.again:
            self._told.append((time.time(), made))

    def _order(self, tag: str) -> Deed:
        return self._backend.order(tag, self._customer(), self._random.choice(STATUSES))

    def _straight_order(self, tag: str) -> Deed:
        status = self._random.choice(STATUSES)
        return self._producer().order(tag, self._customer(), status, self._now())

    def _move(self, tag: str) -> Deed:
        return self._parcels.next()

    def _promotion(self, tag: str) -> Deed:
        return self._backend.promotion(tag, self._some(), "For you alone.")

    def _promotion_to_all(self, tag: str) -> Deed:
        return self._backend.promotion(tag, None, "For everyone.")

    async def _broadcast(self, tag: str) -> None:
        await self.steps.broadcast(f"broadcast-{tag}")

    async def _later(self, tag: str) -> None:
        await self.steps.later(f"later-{tag}", self._customer(), self._type())

    def _straight_promotion(self, tag: str) -> Deed:
        return self._producer().promotion(tag, self._some(), "For you alone.", self._now())

    def _product(self, tag: str) -> Deed:
        return self._backend.product(tag, f"new-{tag}", f"c{self._random.randrange(CATEGORIES)}")

    def _create(self, tag: str) -> Deed:
        return self._backend.notification(tag, self._customer(), self._type(), dedup=False)

    def _create_again(self, tag: str) -> Deed:
        return self._backend.notification(tag, self._customer(), self._type(), dedup=True)

    def _big(self, tag: str) -> Deed:
        user = self._random.choice(self._people.customers[14:20]).id  # who may be stalling
        return self._backend.notification(tag, user, ORDER, dedup=True, size=_BIG)

    def _recommend(self, tag: str) -> Deed:
        person = self._random.choice(self._people.customers)
        return recommendations(person.id, person.token)

    def _track(self, tag: str) -> Deed:
        return self._backend.activity(self._customer(), self._act(), self._product_id())

    def _activity(self, tag: str) -> Deed:
        producer, user = self._producer(), self._customer()
        return producer.activity(tag, user, self._act(), self._product_id(), self._now())

    def _duplicate(self, tag: str) -> Deed | None:
        return self._random.choice(self._lately) if self._lately else None

    def _poison(self, tag: str) -> Deed:
        return poison(self._random.choice(POISONS), tag, self._customer())

    def _conflict(self, tag: str) -> Deed | None:
        """What was accepted a while ago, with other content."""
        late = time.time() - _SETTLED_SECONDS
        old = [
            deed
            for at, deed in self._told
            if at < late and deed.type == ORDER and deed.kind in ("order", "create")
        ]
        if not old:
            return None
        deed = self._random.choice(old)
        if deed.via == EXCHANGE:
            return self._other_event(deed)
        given = deed.variables["input"]
        if deed.kind == "create":
            other = given | {"content": {"attempt": "another", "body": "Other words."}}
        else:
            other = given | {"status": "lost"}
        return replace(
            deed, kind="conflict", expect=Expect.REFUSED, gist="", variables={"input": other}
        )

    def _other_event(self, deed: Deed) -> Deed | None:
        """Only of what is known to be handled: its order on the broker is nobody's promise."""
        [user] = deed.users or ("",)
        source, _, id = deed.key.partition(" ")
        if id not in self._journal.seen:
            return None
        other = Producer(source).order(id, user, "lost", self._now())
        return poisonous(other.body, other.routing_key)

    async def _prefer(self, tag: str) -> None:
        person = self._random.choice(self._people.customers[::3])
        if person.id in self._busy:
            return
        self._busy.add(person.id)
        try:
            await self._switch(person)
        finally:
            self._busy.discard(person.id)

    async def _switch(self, person: Person) -> None:
        """With the version that was read: a request that was long under way changes nothing."""
        version = self._versions.pop(person.id, None)
        if version is None:
            read = await self._ask(person, _PREFERENCES)
            if read.outcome is not Outcome.OK:
                return
            version = read.data["preferences"]["version"]
        type_ = self._random.choice((PROMOTION, RECOMMENDATION))
        on = self._random.random() < 0.6
        wish = {"version": version, "types": [{"type": type_.upper(), "enabled": on}]}
        started = time.time()
        answer = await self._ask(person, _PREFER, input=wish)
        if answer.outcome is Outcome.OK:
            self._versions[person.id] = answer.data["updatePreferences"]["version"]
        self._journal.note(
            Change(
                user=person.id,
                type=type_,
                on=on,
                outcome=answer.outcome,
                started=started,
                ended=time.time(),
                code=answer.code,
            )
        )

    async def _read(self, tag: str) -> None:
        await self._mark("read", _READ)

    async def _archive(self, tag: str) -> None:
        await self._mark("archived", _ARCHIVE)

    async def _mark(self, field: str, document: str) -> None:
        person = self._random.choice(self._people.customers)
        known = self._journal.latest[person.id]
        if not known:
            return
        id, value = self._random.choice(known), self._random.random() < 0.85
        started = time.time()
        answer = await self._ask(person, document, id=id, value=value)
        self._note_mark(person, id, field, value, answer, started)

    async def _read_all(self, tag: str) -> None:
        person = self._random.choice(self._people.customers)
        started = time.time()
        answer = await self._ask(person, _READ_ALL)
        self._note_mark(person, "", "read", True, answer, started)

    def _note_mark(
        self, person: Person, id: str, field: str, value: bool, answer: Answer, started: float
    ) -> None:
        self._journal.note(
            Mark(
                user=person.id,
                id=id,
                field=field,
                value=value,
                outcome=answer.outcome,
                started=started,
                ended=time.time(),
                code=answer.code,
            )
        )

    async def _walk(self, tag: str) -> None:
        person = self._random.choice(self._people.customers)
        ids: list[str] = []
        after, complete, started = None, False, time.time()
        for _ in range(_PAGES):
            answer = await self._ask(person, PAGE, first=_PAGE_SIZE, after=after)
            if answer.outcome is not Outcome.OK:
                break
            page = answer.data["notifications"]
            nodes = [edge["node"] for edge in page["edges"]]
            ids += [node["id"] for node in nodes if not version_in(node["content"])]
            after = page["pageInfo"]["endCursor"]
            if complete := not page["pageInfo"]["hasNextPage"]:
                break
            await asyncio.sleep(self._random.uniform(0, 0.3))
        if ids or complete:
            self._journal.note(
                Walk(
                    user=person.id,
                    ids=tuple(ids),
                    complete=complete,
                    started=started,
                    ended=time.time(),
                )
            )

    async def _ask(self, person: Person, document: str, **variables: Any) -> Answer:
        number = self._random.randrange(len(self._gateways.urls))
        return await self._gateways.ask(number, person.token, document, variables)

    def _tag(self) -> str:
        self._number += 1
        return f"n{self._number}"

    def _customer(self) -> str:
        return self._random.choice(self._people.customers).id

    def _some(self) -> list[str]:
        chosen = self._random.sample(self._people.customers, self._random.randint(1, 6))
        return [person.id for person in chosen]

    def _producer(self) -> Producer:
        return self._random.choice(self._producers)

    def _type(self) -> str:
        return self._random.choice((ORDER, PROMOTION, RECOMMENDATION))

    def _act(self) -> ActivityKind:
        act: ActivityKind = self._random.choice([*ActivityKind])
        return act

    def _product_id(self) -> str:
        return f"product-{self._random.randrange(PRODUCTS)}"
