"""What the campaign's clients did and saw, in memory and as JSON lines.

Times are seconds since 1970 by this process's clock. The services' clocks may be elsewhere by
`offset` seconds: a campaign may live in a DST night.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from enum import StrEnum
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec
from msgspec import Struct

_FLUSH_SECONDS: Final = 0.5


class Outcome(StrEnum):
    OK = "ok"
    """Answered with data, or confirmed: it is promised."""
    REFUSED = "refused"
    """Said not to be done, for good."""
    INDETERMINATE = "indeterminate"
    """It may be done, or become done."""


class Expect(StrEnum):
    OK = "ok"
    REFUSED = "refused"


class Attempt(Struct, frozen=True, kw_only=True, tag_field="record", omit_defaults=True):
    """One try to have something told. `key` is what a stored notification's `event` will be.

    `users`: the recipients, None for everyone. `type`: the notification's, empty where there is
    none to come. `gist`: of the content, empty where it isn't known before. `said`: the decision
    that was answered, or how a broadcast or what was scheduled stands; `id`: of which one. `due`:
    when what is scheduled shall go out.
    """

    kind: str
    via: str
    key: str
    users: tuple[str, ...] | None
    outcome: Outcome
    started: float
    ended: float
    type: str = ""
    gist: str = ""
    expect: Expect = Expect.OK
    code: str = ""
    said: str = ""
    id: str = ""
    due: float = 0.0

    @property
    def is_accepted_event(self) -> bool:
        """Whether it was accepted, and has a key that tells it from all others."""
        right = self.outcome is Outcome.OK and self.expect is Expect.OK
        return right and self.kind not in ("track", "recommend")


class Change(Struct, frozen=True, kw_only=True, tag_field="record"):
    """One try to switch a type on or off."""

    user: str
    type: str
    on: bool
    outcome: Outcome
    started: float
    ended: float
    code: str = ""


class Mark(Struct, frozen=True, kw_only=True, tag_field="record"):
    """One try to mark a notification (`id`; empty for all): `field` is `read` or `archived`."""

    user: str
    id: str
    field: str
    value: bool
    outcome: Outcome
    started: float
    ended: float
    code: str = ""


class Subscribed(Struct, frozen=True, kw_only=True, tag_field="record"):
    """A reader began, or began anew: it wants all behind `base`, a sentAt (0: all)."""

    reader: str
    user: str
    base: float
    at: float


class Sight(Struct, frozen=True, kw_only=True, tag_field="record"):
    """A reader saw a notification, live or (`connection` -1) on a page after a RESYNC.

    `gist`: of its content. `version`: of its order, if that moves; else 0.
    """

    reader: str
    user: str
    id: str
    sent: float
    connection: int
    at: float
    gist: str
    cursor: str = ""
    version: int = 0


class Closed(Struct, frozen=True, kw_only=True, tag_field="record"):
    """A reader's connection ended, or could not be had: the close code, or what happened."""

    reader: str
    connection: int
    why: str
    at: float


class Walk(Struct, frozen=True, kw_only=True, tag_field="record"):
    """Pages that were walked, newest first. `complete`: to the end of the list."""

    user: str
    ids: tuple[str, ...]
    complete: bool
    started: float
    ended: float


class Scheduled(Struct, frozen=True, kw_only=True, tag_field="record"):
    """A schedule that stands, whose every fire is for this user."""

    id: str
    user: str
    cron: str
    timezone: str
    created: float


class Published(Struct, frozen=True, kw_only=True, tag_field="record"):
    """What the audit queue got. `digest`: of the bytes."""

    key: str
    type: str
    digest: str
    at: float


class Probed(Struct, frozen=True, kw_only=True, tag_field="record"):
    """The prober's event was accepted, or (`arrived`) seen by its reader.

    `path`: its reader and how it was published.
    """

    id: str
    path: str
    arrived: bool
    at: float


class Counted(Struct, frozen=True, kw_only=True, tag_field="record"):
    """An unreadCount subscriber was told."""

    user: str
    count: int
    at: float


class Person(Struct, frozen=True, kw_only=True, tag_field="record"):
    """Somebody of the campaign's shop. `refuses`: types switched off from the beginning;
    `channels`: where they have consented to marketing from the beginning, and leave it so."""

    id: str
    role: str
    token: str
    refuses: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


class Period(Struct, frozen=True, kw_only=True, tag_field="record"):
    """`event`: began, stopping (no more load) or settled."""

    event: str
    at: float
    offset: float


Record = (
    Attempt
    | Change
    | Mark
    | Subscribed
    | Sight
    | Closed
    | Walk
    | Scheduled
    | Published
    | Probed
    | Counted
    | Person
    | Period
)


class Probe(NamedTuple):
    """One that was accepted; `arrived` is None if it was not seen (yet)."""

    path: str
    accepted: float
    arrived: float | None


class Journal:
    """Records in the order in which they were noted, and at `path`, if given, as JSON lines."""

    def __init__(self, path: Path | None = None) -> None:
        self.offset = 0.0
        self.began = self.stopping = self.settled = 0.0
        self.attempts: list[Attempt] = []
        self.changes: list[Change] = []
        self.marks: list[Mark] = []
        self.subscribed: list[Subscribed] = []
        self.sights: list[Sight] = []
        self.moves_seen: list[Sight] = []
        self.walks: list[Walk] = []
        self.schedules: list[Scheduled] = []
        self.published: list[Published] = []
        self.counted: dict[str, int] = {}
        self.people: list[Person] = []
        self.probes_accepted: dict[str, Probed] = {}
        self.probes_arrived: dict[str, float] = {}
        self.closes: Counter[str] = Counter()
        self.resyncs: list[Closed] = []
        self.accepted: set[str] = set()  # keys of what has a key of its own
        self.outcomes: Counter[Outcome] = Counter()
        self.latest: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=50))
        self.last_sight = 0.0
        self.seen: set[str] = set()  # orders that a reader has seen
        self._encode = msgspec.json.Encoder().encode
        self._flushed = 0.0
        self._file: IO[bytes] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")

    @classmethod
    def load(cls, path: Path) -> Journal:
        """A journal that was written before, to be studied."""
        journal = cls()
        decode = msgspec.json.Decoder(Record).decode
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    journal.note(decode(line))
        return journal

    def note(self, record: Record) -> None:
        if self._file is not None:
            self._file.write(self._encode(record) + b"\n")
            if (now := time.monotonic()) - self._flushed > _FLUSH_SECONDS:
                self._flushed = now
                self._file.flush()
        self._keep(record)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def period(self, event: str) -> None:
        self.note(Period(event=event, at=time.time(), offset=self.offset))

    def probes(self, since: float = 0.0) -> list[Probe]:
        """Those that were accepted since then, the latest first."""
        found: list[Probe] = []
        for id, probed in reversed(self.probes_accepted.items()):
            if probed.at < since:
                break
            found.append(Probe(probed.path, probed.at, self.probes_arrived.get(id)))
        return found

    def _keep(self, record: Record) -> None:
        match record:
            case Attempt():
                self.attempts.append(record)
                self.outcomes[record.outcome] += 1
                if record.is_accepted_event:
                    self.accepted.add(record.key)
            case Change():
                self.changes.append(record)
                self.outcomes[record.outcome] += 1
            case Mark():
                self.marks.append(record)
                self.outcomes[record.outcome] += 1
            case Sight(version=version) if version:
                self.moves_seen.append(msgspec.structs.replace(record, cursor=""))
                self.last_sight = record.at
            case Sight():
                self.sights.append(msgspec.structs.replace(record, cursor=""))
                self.latest[record.user].append(record.id)
                self.last_sight = record.at
            case Subscribed():
                self.subscribed.append(record)
            case Closed():
                self.closes[record.why] += 1
                if record.why == "RESYNC":
                    self.resyncs.append(record)
            case Walk():
                self.walks.append(record)
            case Scheduled():
                self.schedules.append(record)
            case Published():
                self.published.append(record)
            case Probed(arrived=True):
                self.probes_arrived.setdefault(record.id, record.at)
            case Probed():
                self.probes_accepted[record.id] = record
            case Counted():
                self.counted[record.user] = record.count
            case Person():
                self.people.append(record)
            case Period():
                self.offset = record.offset
                setattr(self, record.event, record.at)
