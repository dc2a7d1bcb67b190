"""Collections of garbage are short, and still find it."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.loop import collect_rarely
from tests.processes import tidings
from tests.servers import until

A_GATEWAYS_OBJECTS = 50_000  # at the least: it has twice as many


class Thing:
    itself: Thing


@pytest.fixture
def collecting_as_before() -> Iterator[None]:
    former = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*former)


async def test_what_a_process_has_when_it_has_started_is_walked_no_more(tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, LOG_LEVEL="DEBUG") as run:
        await run.ready()
        told = await until(lambda: re.findall(r"spared_of_collections=(\d+)", run.errors))
        assert int(told[0]) > A_GATEWAYS_OBJECTS


@pytest.mark.usefixtures("collecting_as_before")
def test_what_comes_later_is_collected() -> None:
    before = Thing()
    assert collect_rarely() > 0
    later = Thing()
    later.itself = later
    gone = weakref.ref(later)
    walked = {id(one) for one in gc.get_objects()}
    assert id(later) in walked
    assert id(before) not in walked
    del later
    gc.collect()
    assert gone() is None
