"""What the users service does when it hears of something."""

from __future__ import annotations

from collections.abc import Sequence

from services.shared.bus import Handlers
from services.shared.events import Event, UserActivity
from services.users.service import UserService


def handlers(users: UserService) -> Handlers:
    async def on_user_activity(events: Sequence[Event]) -> None:
        await users.keep_activities(events)

    return {UserActivity.type: on_user_activity}
