"""What a shop asks for: to notify one user, and to recommend."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from msgspec import structs

from services.notifications import recommend
from services.notifications.announcing import Announcing
from services.notifications.collapse import Collapse, Rank
from services.notifications.drafts import (
    Announcement,
    Asked,
    check_key,
    recommendation_draft,
)
from services.notifications.gather import Gatherer
from services.notifications.personalize import Decision, Reason
from services.notifications.recommend import Recommendation
from services.notifications.wording import Texts
from services.shared.clock import Clock
from services.shared.errors import BadInput, NotFound
from services.shared.settings import Settings
from services.shared.vocabulary import NotificationType, Outcome
from services.users.models import User


class NotificationService:
    def __init__(
        self,
        announcing: Announcing,
        texts: Texts,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._announcing = announcing
        self._texts = texts
        self._clock = clock
        self._settings = settings
        self._gatherer = Gatherer(settings)

    async def create(
        self,
        user_id: str,
        type_: NotificationType,
        content: Any,
        *,
        title: str | None = None,
        dedup_key: str | None = None,
        expires_at: datetime | None = None,
        collapse_key: str | None = None,
        version: int | None = None,
        unread_again: bool = True,
        source: str,
    ) -> Announcement:
        """Notify one user now. `source` names the caller, whose dedup keys are its own.
        `expires_at`: None for what its type has. `collapse_key`, `version`, `unread_again`: of
        what it is a state, see collapse.py.

        Raises BadInput, NotFound for an unknown user, and Conflict for a dedup key that was used
        with another notification.
        """
        asked = Asked(user_id, type_, content, title, expires_at).checked(
            self._settings.max_content_bytes
        )
        check_key(dedup_key, "input.dedupKey")
        check_key(collapse_key, "input.collapseKey")
        if version is not None and collapse_key is None:
            raise BadInput("A version belongs to a collapseKey.", "input.version")
        if not unread_again and collapse_key is None:
            raise BadInput("This belongs to a collapseKey.", "input.unreadAgain")
        user = await self._user(user_id)
        event = (
            f"{source}/dedup {dedup_key}" if dedup_key is not None else f"{source} {uuid4().hex}"
        )
        now = self._clock.now()
        draft = asked.draft(event, self._texts.words(user))
        if collapse_key is not None:
            rank = Rank.of(version, now, event)
            draft = structs.replace(draft, collapse=Collapse(collapse_key, rank, unread_again))
        if dedup_key is not None and (original := await self._announcing.original(draft)):
            return original
        if asked.expires_at is not None and asked.expires_at <= now:
            raise BadInput("expiresAt lies in the past.", "input.expiresAt")
        return await self._announcing.announce_one(draft, user)

    async def recommend(self, user_id: str, source: str) -> Announcement:
        """Send one notification with up to five products. Raises NotFound."""
        found = await self.recommendations(user_id, 5)
        user = await self._user(user_id)  # now: what they refuse while we seek counts
        if len(found) < recommend.FEWEST_WORTH_SENDING:
            return Announcement(None, Decision(Outcome.SUPPRESSED, Reason.TOO_FEW_CANDIDATES))
        event = f"{source} {uuid4().hex}"
        draft = recommendation_draft(user_id, event, found, self._texts.words(user))
        return await self._announcing.announce_one(draft, user)

    async def recommendations(self, user_id: str, limit: int) -> Sequence[Recommendation]:
        """What would be recommended to this user now, the best first."""
        now = self._clock.now()
        crowd = await self._gatherer.crowd(now)
        return await self._gatherer.recommendations(user_id, crowd, limit, now)

    async def _user(self, user_id: str) -> User:
        user = await User.by_id(user_id)
        if user is None:
            raise NotFound(f"There is no user {user_id}.")
        return user
