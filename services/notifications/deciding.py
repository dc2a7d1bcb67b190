"""Deciding about many at one instant: asked once about all who are in the same situation.

Most of those whom a broadcast reaches are: they chose nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from services.notifications import traces
from services.notifications.collapse import Rank
from services.notifications.dispatch import Wanted
from services.notifications.personalize import Decision, Situation, decide


class Verdict(NamedTuple):
    """`trace`: as it is stored, see traces.py; shared by many, so nobody changes it."""

    situation: Situation
    decision: Decision
    trace: dict[str, Any]


class Deciding:
    """`now`: the instant; `shop_timezone`: of those who have chosen none."""

    def __init__(self, now: datetime, shop_timezone: str) -> None:
        self._now = now
        self._shop_timezone = shop_timezone
        self._known: dict[object, Verdict] = {}

    def about(self, wanted: Wanted, told_rank: Rank | None = None) -> Verdict:
        """About the app. `told_rank`: of the state that is told already; where none is, it does not
        matter of which state the draft tells."""
        draft, preferences = wanted.draft, wanted.preferences
        zone = wanted.timezone or self._shop_timezone
        # Recipients who chose nothing share one object. What is kept here keeps it alive.
        alike = (draft.type, wanted.message_class, draft.expires_at, zone, id(preferences))
        if told_rank is None and (known := self._known.get(alike)):
            return known
        situation = Situation(
            draft.type,
            wanted.message_class,
            preferences,
            self._now,
            draft.expires_at,
            timezone=zone,
            rank=draft.collapse.rank if draft.collapse and told_rank is not None else None,
            told_rank=told_rank,
        )
        decision = decide(situation)
        verdict = Verdict(situation, decision, traces.stored(situation, decision))
        if told_rank is None:
            self._known[alike] = verdict
        return verdict
