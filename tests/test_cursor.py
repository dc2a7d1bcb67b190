"""Cursors: what a reader wants next, held against a slow reader that remembers everything."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

import msgspec
import pytest
from bson import ObjectId
from hypothesis import example, given
from hypothesis import strategies as st

from services.notifications.cursor import (
    Cursor,
    CursorRefused,
    Position,
    Progress,
    Seen,
    from_milliseconds,
    to_milliseconds,
)

LATEST = 253_402_300_799_999  # the last millisecond of the year 9999
milliseconds = st.integers(0, LATEST)
ids = st.binary(min_size=12, max_size=12)
positions = st.builds(Position, milliseconds, ids)
sights = st.builds(Seen, ids, st.integers(0, 10_000))
cursors = st.builds(
    Cursor, milliseconds, ids, milliseconds, st.lists(sights, max_size=5).map(tuple)
)


@given(cursors)
def test_a_cursor_comes_back_from_its_text_as_it_was(cursor: Cursor) -> None:
    assert Cursor.decode(cursor.encode()) == cursor


@given(cursors)
def test_a_cursor_is_text_that_any_url_carries(cursor: Cursor) -> None:
    assert set(cursor.encode()) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


@given(milliseconds)
def test_a_stamp_is_kept_to_the_millisecond(at: int) -> None:
    assert to_milliseconds(from_milliseconds(at)) == at


@given(positions, positions)
def test_places_are_ordered_by_stamp_and_then_by_id(one: Position, other: Position) -> None:
    assert (one < other) == ((one.sent_at, one.object_id) < (other.sent_at, other.object_id))


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_a_cursor_or_is_refused(text: str) -> None:
    try:
        Cursor.decode(text)
    except CursorRefused:
        return


def text_of(value: object) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(value)).rstrip(b"=").decode()


GOOD = (5, bytes(12), 5, ((bytes(12), 0),))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("one two", id="words"),
        pytest.param("é", id="not ASCII"),
        pytest.param(text_of(GOOD)[:-3], id="cut off"),
        pytest.param(text_of(GOOD) + "AAAA", id="with an appendix"),
        pytest.param(text_of({"at": 5}), id="an object"),
        pytest.param(text_of((5, bytes(12))), id="too short"),
        pytest.param(text_of(("5", bytes(12), 5)), id="a stamp in words"),
        pytest.param(text_of((-1, bytes(12), 5)), id="a stamp before 1970"),
        pytest.param(text_of((LATEST + 1, bytes(12), 5)), id="a stamp beyond all dates"),
        pytest.param(text_of((5, bytes(12), 2**63)), id="a huge floor"),
        pytest.param(text_of((5, bytes(11), 5)), id="a short id"),
        pytest.param(text_of((5, bytes(12), 5, ((b"id", 0),))), id="a short id that was seen"),
        pytest.param(text_of((5, bytes(12), 5, (bytes(12),))), id="seen, and not when"),
        pytest.param(text_of((5, bytes(12), 5, ((bytes(12), -1),))), id="seen before the floor"),
        pytest.param(
            base64.urlsafe_b64encode(
                b"\x95" + msgspec.msgpack.encode(GOOD)[1:] + b"\x91" * 9999 + b"\xc0"
            ).decode(),
            id="nested without end",
        ),
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(CursorRefused):
        Cursor.decode(text)


@dataclass
class Elephant:
    """The slow reader: it never forgets what it saw."""

    position: Position
    floor: int
    seen: set[Position] = field(default_factory=set)

    def wants(self, place: Position) -> bool:
        """One that was seen in a later place has been revised: this is what it said before."""
        seen_later = any(seen.id == place.id and seen.at >= place.at for seen in self.seen)
        return place > self.position or (place.at >= self.floor and not seen_later)

    def saw(self, place: Position) -> None:
        self.seen.add(place)
        self.position = max(self.position, place)

    def settle(self, before: int) -> None:
        self.floor = max(self.floor, before)


STAMPS = [3, 3, 4, 5, 5, 5, 6, 8, 9, 9]
# Ten places of eight notifications: two of them are revised.
PLACES = [Position(at, bytes([7 * n % 8] * 12)) for n, at in enumerate(STAMPS)]
Step = tuple[Literal["see", "settle", "pause"], int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("see"), st.integers(0, len(PLACES) - 1)),
        st.tuples(st.just("settle"), st.integers(0, 12)),
        st.tuples(st.just("pause"), st.just(0)),
    ),
    max_size=30,
)


@given(st.integers(0, 10), steps)
@example(0, [("see", 0), ("see", 9)])  # then wanted: 8, which is 0 revised
@example(2, [("see", 5), ("settle", 4), ("pause", 0), ("settle", 5), ("see", 4)])
def test_a_reader_wants_what_one_that_remembers_everything_wants(
    floor: int, steps: Sequence[Step]
) -> None:
    progress = Progress(Cursor(floor, bytes(12), floor))
    elephant = Elephant(Position(floor, bytes(12)), floor)
    for kind, number in steps:
        if kind == "see" and elephant.wants(PLACES[number]):
            progress.saw(PLACES[number])
            elephant.saw(PLACES[number])
        elif kind == "settle":
            progress.settle(from_milliseconds(number))
            elephant.settle(number)
        elif kind == "pause":
            progress = Progress(Cursor.decode(progress.cursor().encode()))
        wanted = [place for place in PLACES if elephant.wants(place)]
        assert [place for place in PLACES if progress.wants(place)] == wanted
        assert all(place >= progress.start for place in wanted)


@given(st.integers(0, 10), steps)
def test_a_cursor_carries_no_more_than_what_is_unsettled(floor: int, steps: Sequence[Step]) -> None:
    progress = Progress(Cursor(floor, bytes(12), floor))
    for kind, number in steps:
        if kind == "see":
            progress.saw(PLACES[number])
        elif kind == "settle":
            progress.settle(from_milliseconds(number))
    settled = progress.cursor().floor
    told = {Position(settled + seen.behind, seen.id) for seen in progress.cursor().seen}
    assert told <= {place for place in PLACES if place.at >= settled}
    assert len(progress.cursor().seen) == progress.unsettled


@pytest.mark.parametrize("pausing", [False, True])
def test_what_is_settled_is_dropped_from_the_cursor(pausing: bool) -> None:
    progress = Progress(Cursor(0, bytes(12), 0))
    for place in PLACES:
        progress.saw(place)
    if pausing:
        progress = Progress(Cursor.decode(progress.cursor().encode()))
    progress.settle(from_milliseconds(max(STAMPS) + 1))
    assert progress.cursor() == Cursor(*max(PLACES), max(STAMPS) + 1)


WINDOW = 5
writes = st.lists(st.tuples(st.integers(0, 40), st.integers(0, WINDOW - 1)), max_size=25)
reads = st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.integers(1, 9)), max_size=20)


@given(writes, reads)
def test_writers_that_stamp_early_and_commit_late_lose_nothing(
    writes: list[tuple[int, int]], reads: list[tuple[int, bool, int]]
) -> None:
    """A whole life, in ticks: reads at any time, of any size, with pauses between them."""
    rows = [
        (Position(stamp, bytes([n] * 12)), stamp + delay)
        for n, (stamp, delay) in enumerate(sorted(writes))
    ]
    progress = Progress(Cursor(0, bytes(12), 0))
    seen: list[Position] = []
    for now, pausing, most in [*sorted(reads), (100, True, 99)]:
        stored = sorted(place for place, committed in rows if committed <= now)
        wanted = [place for place in stored if progress.wants(place)]
        settled = from_milliseconds(max(now - WINDOW, 0))
        for place in wanted[:most]:
            progress.saw_in_order(place, settled)
            seen.append(place)
            if pausing:
                progress = Progress(Cursor.decode(progress.cursor().encode()))
        if len(wanted) <= most:
            progress.settle(settled)
    assert sorted(seen) == [place for place, _ in rows]


states = st.lists(  # of which notification, how long after the last, and how late it is committed
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, WINDOW - 1)), max_size=25
)


@given(states, reads)
@example([(0, 1, 0), (0, 1, 4), (1, 1, 0)], [(4, True, 9)])  # revised behind another's back
def test_of_what_is_revised_the_last_state_is_seen_and_none_after_a_newer_one(
    states: list[tuple[int, int, int]], reads: list[tuple[int, bool, int]]
) -> None:
    history: dict[int, list[tuple[Position, int]]] = {}
    stamp = 0
    for n, after, delay in states:
        stamp += after
        former = history.setdefault(n, [])
        # Above the former one, and committed behind it: it saw it.
        at = max(stamp, former[-1][0].at + 1 if former else 0)
        committed = max(at + delay, former[-1][1] if former else 0)
        former.append((Position(at, bytes([n] * 12)), committed))
    progress = Progress(Cursor(0, bytes(12), 0))
    seen: dict[bytes, list[Position]] = {}
    end = max((done for former in history.values() for _, done in former), default=0)
    for now, pausing, most in [*sorted(reads), (max(end, 50) + 2 * WINDOW, True, 99)]:
        done = [[place for place, at in former if at <= now] for former in history.values()]
        stored = sorted(places[-1] for places in done if places)
        wanted = [place for place in stored if progress.wants(place)]
        settled = from_milliseconds(max(now - WINDOW, 0))
        for place in wanted[:most]:
            progress.saw_in_order(place, settled)
            seen.setdefault(place.id, []).append(place)
            if pausing:
                progress = Progress(Cursor.decode(progress.cursor().encode()))
        if len(wanted) <= most:
            progress.settle(settled)
    for former in history.values():
        last = former[-1][0]
        assert seen[last.id][-1] == last
        assert all(a < b for a, b in pairwise(seen[last.id]))


def test_a_position_is_a_notifications_stamp_and_id() -> None:
    id, sent_at = ObjectId(), datetime(2026, 11, 22, 12, 30, 0, 123_000, tzinfo=UTC)
    position = Position.of(sent_at, id)
    assert (position.sent_at, position.object_id) == (sent_at, id)
    assert Position.start() < Position.of(datetime.fromtimestamp(0, UTC), id)
