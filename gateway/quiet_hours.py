"""Quiet hours, as GraphQL shows them: docs/personalization.md tells their rule."""

from __future__ import annotations

import strawberry

from gateway.enums import Channel, QuietAction, Weekday
from services.users import quiet_hours
from services.users.quiet_hours import QuietChange


@strawberry.type(description="A time of the week, on the clock of the preferences' time zone.")
class QuietWindow:
    days: list[Weekday] = strawberry.field(
        description="The days on which it starts, in the week's order."
    )
    start: str = strawberry.field(description="HH:MM, the first minute of it.")
    end: str = strawberry.field(
        description="HH:MM, the first minute after it; of the next day if it is not after start."
    )


@strawberry.type(description="When a channel is quiet.")
class QuietHours:
    channel: Channel = strawberry.field(description="The channel.")
    action: QuietAction = strawberry.field(description="What happens to what falls into them.")
    windows: list[QuietWindow] = strawberry.field(
        description="At least one; those that touch or overlap are one."
    )

    @classmethod
    def of(cls, channel: Channel, hours: quiet_hours.QuietHours) -> QuietHours:
        return cls(
            channel=channel,
            action=hours.action,
            windows=[
                QuietWindow(days=list(one.days), start=one.start, end=one.end)
                for one in hours.windows
            ],
        )


@strawberry.input(description="A time of the week, on the clock of the preferences' time zone.")
class QuietWindowInput:
    start: str = strawberry.field(description="HH:MM, 00:00 to 23:59: the first minute of it.")
    end: str = strawberry.field(
        description="HH:MM, the first minute after it; of the next day if it is not after start, "
        "so that equal times are 24 hours."
    )
    days: list[Weekday] | None = strawberry.field(
        default=None, description="The days on which it starts; default all."
    )

    def window(self) -> quiet_hours.QuietWindow:
        days = Weekday if self.days is None else self.days
        return quiet_hours.QuietWindow(days=tuple(days), start=self.start, end=self.end)


@strawberry.input(description="Quiet hours of a channel, instead of those that it has.")
class QuietHoursInput:
    channel: Channel = strawberry.field(
        description="Any but IN_APP: in the app nothing is delayed."
    )
    windows: list[QuietWindowInput] = strawberry.field(
        description="All of them, up to MAX_QUIET_WINDOWS; none: the channel has no quiet hours."
    )
    action: QuietAction = strawberry.field(
        default=QuietAction.DEFER, description="What happens to what falls into them."
    )

    def change(self) -> QuietChange:
        return QuietChange(self.channel, self.action, tuple(one.window() for one in self.windows))
