"""How much marketing is too much: so many in any window, per channel and in total. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from services.shared.settings import Settings
from services.shared.vocabulary import Channel, OverCap

_CLOCKS_DIFFER: Final = timedelta(minutes=1)  # by less, those of workers


class Spent(NamedTuple):
    """That an event went out on a channel, or is about to."""

    event: str
    channel: Channel
    at: datetime


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many on these channels together, in any window: one that ends now has begun just
    after `now - window`."""

    channels: frozenset[Channel]
    most: int
    window: timedelta

    def free_at(self, spent: Sequence[Spent], now: datetime) -> datetime | None:
        """When one more may go out; None: now.

        What another worker's clock has stamped later than `now` counts, too: so of those that fall
        into one window, whichever was written last has counted all the others.
        """
        counted = sorted(
            one.at for one in spent if one.channel in self.channels and one.at > now - self.window
        )
        if len(counted) < self.most:
            return None
        return counted[-self.most] + self.window


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a user may get, what has been spent of it, and what happens to what is over it."""

    caps: tuple[Cap, ...] = ()
    over: OverCap = OverCap.DEFER
    spent: tuple[Spent, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Allowance:
        """Of which nothing has been spent."""
        push, email = Channel.WEB_PUSH, Channel.EMAIL
        others = frozenset(Channel) - {Channel.IN_APP}
        caps = (
            (frozenset({push}), settings.cap_web_push, settings.cap_web_push_seconds),
            (frozenset({email}), settings.cap_email, settings.cap_email_seconds),
            (others, settings.cap_total, settings.cap_total_seconds),
        )
        return cls(
            tuple(
                Cap(channels, most, timedelta(seconds=window)) for channels, most, window in caps
            ),
            settings.over_cap,
        )

    def free_at(self, channel: Channel, now: datetime) -> datetime | None:
        """When one more may go out on this channel, if nothing else does; None: now."""
        if not self.spent:  # as of most
            return None
        ends = [cap.free_at(self.spent, now) for cap in self._of(channel)]
        return max(filter(None, ends), default=None)

    def counts(self, one: Spent, now: datetime) -> bool:
        """Whether it may still count, by whichever worker's clock."""
        return any(one.at > now - cap.window - _CLOCKS_DIFFER for cap in self._of(one.channel))

    def _of(self, channel: Channel) -> Sequence[Cap]:
        return [cap for cap in self.caps if channel in cap.channels]


UNCAPPED: Final = Allowance()
