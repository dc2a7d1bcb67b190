"""Marketing outside the app: to who consented, no more than the caps allow, and all of it. Pure.

Instants are compared as the services stamped them. A ledger counts whatever is stamped later than a
window ago, by whichever clock, so the caps hold for these stamps exactly.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from campaign.deeds import ORDER
from campaign.found import Delivery, Row, Spent
from campaign.journal import Person
from campaign.verdict import Finding, Violation
from services.shared.settings import Settings

_READY, _HELD, _DIGESTED = "ready", "held", "digested"
_DIGEST: Final = "urn:tidings digest/"
_LATE: Final = timedelta(seconds=10)  # all was quiet for longer


class Cap(NamedTuple):
    """At most so many on these channels together in any window."""

    channels: Set[str]
    most: int
    window: timedelta


def caps_of(settings: Settings) -> Sequence[Cap]:
    push, email = {"web_push"}, {"email"}
    return [
        Cap(push, settings.cap_web_push, timedelta(seconds=settings.cap_web_push_seconds)),
        Cap(email, settings.cap_email, timedelta(seconds=settings.cap_email_seconds)),
        Cap(push | email, settings.cap_total, timedelta(seconds=settings.cap_total_seconds)),
    ]


def check_caps(
    deliveries: Sequence[Delivery],
    ledgers: Mapping[str, Sequence[Spent]],
    rows: Sequence[Row],
    people: Sequence[Person],
    caps: Sequence[Cap],
    now: datetime,
) -> Iterator[Finding]:
    """`rows`: all that does not move; `now`: by the services' clock, when all this was so."""
    yield from _check_each(deliveries, now)
    yield from _check_digests(deliveries)
    marketing: defaultdict[str, list[Delivery]] = defaultdict(list)
    for one in deliveries:
        if one.type != ORDER:
            marketing[one.user].append(one)
    told: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.type != ORDER:
            told[row.user].add(row.event)
    channels = {person.id: person.channels for person in people}
    for user in {*channels, *marketing, *ledgers}:
        own = marketing[user]
        yield from _check_wanted(user, channels.get(user, ()), own, told[user])
        yield from _check_windows(user, own, caps)
        yield from _check_ledger(user, own, ledgers.get(user, ()), caps, now)


def _check_each(deliveries: Sequence[Delivery], now: datetime) -> Iterator[Finding]:
    keys = Counter((one.user, one.event, one.channel) for one in deliveries)
    for (user, event, channel), count in keys.items():
        if count > 1:
            evidence = {"user": user, "event": event, "channel": channel, "deliveries": count}
            yield Finding(Violation.DUPLICATED, evidence)
    for one in deliveries:
        if one.state == _HELD and (one.due is None or one.due < now - _LATE):
            yield Finding(Violation.LEFTOVER, {"where": "held deliveries", "delivery": one})


def _check_digests(deliveries: Sequence[Delivery]) -> Iterator[Finding]:
    """Each holds those that went out in it, and these are of its user and channel."""
    held = Counter((d.digest, d.user, d.channel) for d in deliveries if d.state == _DIGESTED)
    digests = {(d.id, d.user, d.channel): d for d in deliveries if d.event.startswith(_DIGEST)}
    for key in {*held, *digests}:
        holds = digests[key].holds if key in digests else 0
        if held[key] != holds:
            evidence = {"digest": key[0], "user": key[1], "went out in it": held[key]}
            yield Finding(Violation.WRONG_COUNT, evidence | {"holds": holds})


def _check_wanted(
    user: str, channels: Sequence[str], marketing: Sequence[Delivery], told: Set[str]
) -> Iterator[Finding]:
    """Whatever was told in the app of one who consented goes out there, and nothing else does."""
    found = {(one.event, one.channel) for one in marketing if not one.event.startswith(_DIGEST)}
    for event in told:
        for channel in channels:
            if (event, channel) not in found:
                evidence = {"delivery of": event, "user": user, "channel": channel}
                yield Finding(Violation.LOST, evidence)
    for one in marketing:
        if one.channel not in channels:
            yield Finding(Violation.REFUSED_BUT_SENT, {"user": user, "delivery": one})
        elif one.event not in told and not one.event.startswith(_DIGEST):
            yield Finding(Violation.MISDIRECTED, {"user": user, "delivery": one})


def _check_windows(
    user: str, marketing: Sequence[Delivery], caps: Sequence[Cap]
) -> Iterator[Finding]:
    for cap in caps:
        stamps = sorted(
            one.at for one in marketing if one.state == _READY and one.channel in cap.channels
        )
        for first, last in zip(stamps, stamps[cap.most :], strict=False):
            if last - first < cap.window:
                evidence = {"user": user, "channels": sorted(cap.channels), "most": cap.most}
                yield Finding(Violation.OVER_CAP, evidence | {"from": first, "to": last})
                break


def _check_ledger(
    user: str,
    marketing: Sequence[Delivery],
    ledger: Sequence[Spent],
    caps: Sequence[Cap],
    now: datetime,
) -> Iterator[Finding]:
    """It holds what was spent: all that still counts, and nothing that did not go out."""
    ready = {(one.event, one.channel, one.at) for one in marketing if one.state == _READY}
    missing = {
        (event, channel, at)
        for event, channel, at in ready.difference(ledger)
        if any(channel in cap.channels and at > now - cap.window for cap in caps)
    }
    if surplus := set(ledger) - ready:
        yield Finding(Violation.WRONG_COUNT, {"user": user, "spent for nothing": sorted(surplus)})
    if missing:
        yield Finding(Violation.WRONG_COUNT, {"user": user, "not in the ledger": sorted(missing)})
