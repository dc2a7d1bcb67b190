"""How a user's preferences stood over a stretch of time, as far as clients can know. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum

from campaign.deeds import ORDER
from campaign.journal import Change, Outcome, Person


class State(StrEnum):
    ON = "on"
    OFF = "off"
    EITHER = "either"


class Wishes:
    """From a change's start until one is acknowledged nobody knows; then it is what that said."""

    def __init__(self, people: Sequence[Person], changes: Sequence[Change]) -> None:
        self._first = {
            (person.id, type_): State.OFF for person in people for type_ in person.refuses
        }
        self._steps: defaultdict[tuple[str, str], list[tuple[float, State]]] = defaultdict(list)
        for change in sorted(changes, key=lambda change: change.started):
            if change.outcome is Outcome.REFUSED:
                continue
            steps = self._steps[change.user, change.type]
            steps.append((change.started, State.EITHER))
            if change.outcome is Outcome.OK:
                steps.append((change.ended, State.ON if change.on else State.OFF))

    def over(self, user: str, type_: str, start: float, end: float) -> State:
        """The state all the time from `start` to `end`; EITHER if it may have changed."""
        if type_ in ("", ORDER):
            return State.ON  # locked
        at_start = self._first.get((user, type_), State.ON)
        states = set()
        for at, state in self._steps[user, type_]:
            if at <= start:
                at_start = state
            elif at <= end:
                states.add(state)
        states.add(at_start)
        return states.pop() if len(states) == 1 else State.EITHER
