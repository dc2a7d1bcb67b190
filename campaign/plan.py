"""Which fault comes next: pure, and the same for the same seed.

The kinds are drawn from a bag until it is empty, so each gets its turn; what takes seconds to come
back (a server) is in every other bag only.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

SHORTEST, LONGEST = 0.5, 6.0  # seconds that a fault lasts

ALONE = 0.4  # part of the faults


@dataclass(frozen=True)
class Step:
    """Wait `delay` seconds, then break something for `length` seconds.

    `pick` in [0, 1) chooses the target among those of the kind. `alone`: with nothing else broken
    from shortly before until all is well again, so that the time to recover can be told.
    """

    delay: float
    kind: str
    pick: float
    length: float
    alone: bool

    def choose(self, targets: Sequence[str]) -> str:
        return targets[int(self.pick * len(targets))]


def plan(seed: int, kinds: Sequence[str], rare: Collection[str], every: float) -> Iterator[Step]:
    """Endless steps, `every` seconds apart in the mean."""
    dice = random.Random(seed)
    common = [kind for kind in kinds if kind not in rare]
    while True:
        for bag in (list(kinds), common or list(kinds)):
            dice.shuffle(bag)
            for kind in bag:
                yield Step(
                    delay=dice.uniform(0.3, 1.7) * every,
                    kind=kind,
                    pick=dice.random(),
                    length=dice.uniform(SHORTEST, LONGEST),
                    alone=dice.random() < ALONE,
                )


def night(seed: int, now: datetime, length: timedelta) -> datetime:
    """When a campaign begins that has Europe's clocks change in its middle, in the next year.

    An even seed plays in spring, an odd one in autumn. Never in the past: there, a TTL index
    would take away what the house wants to remember.
    """
    month = 10 if seed % 2 else 3  # the last Sunday, at 1:00 UTC
    last = date(now.year + 1, month, 31)
    sunday = last - timedelta(days=(last.weekday() - calendar.SUNDAY) % 7)
    change = datetime(sunday.year, sunday.month, sunday.day, 1, tzinfo=UTC)
    return change - length / 2
