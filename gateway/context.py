"""What a resolver is handed: who is asking, the services, and loaders that batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import strawberry
from strawberry.dataloader import DataLoader
from strawberry.extensions import FieldExtension
from strawberry.permission import BasePermission, PermissionExtension

from gateway.admission import Place
from gateway.live import Live
from gateway.news import AtOnce
from services.notifications.announcing import Announcing
from services.notifications.broadcasting import Broadcasting
from services.notifications.intake import Intake
from services.notifications.models import Notification
from services.notifications.scheduling import Scheduling
from services.notifications.service import NotificationService
from services.notifications.states import States
from services.notifications.together import Together
from services.notifications.wording import Texts
from services.scheduler.service import SchedulerService
from services.shared.bus import Bus
from services.shared.clock import Clock
from services.shared.errors import Forbidden, NotFound, Unauthenticated
from services.shared.log import get_logger
from services.shared.outbox import Outbox
from services.shared.pulse import Counts, Pulse
from services.shared.settings import Settings
from services.shared.vocabulary import Role, Scope
from services.users.access import Access
from services.users.api_keys import ApiKeys, is_api_key
from services.users.choosing import Choosing
from services.users.links import UnsubscribeLinks
from services.users.models import User
from services.users.service import UserService
from services.users.sessions import Caller, Presumption, Sessions
from services.users.tokens import Identity

log = get_logger()


@dataclass(frozen=True, slots=True)
class Services:
    """What resolvers may use; one for the whole gateway."""

    settings: Settings
    clock: Clock
    bus: Bus
    outbox: Outbox
    pulse: Pulse
    counts: Counts
    intake: Intake
    sessions: Sessions
    together: Together
    access: Access
    api_keys: ApiKeys
    users: UserService
    choosing: Choosing
    links: UnsubscribeLinks
    texts: Texts
    announcing: Announcing
    notifications: NotificationService
    states: States
    scheduling: Scheduling
    broadcasting: Broadcasting
    schedules: SchedulerService
    live: Live

    async def identify(self, token: str) -> Identity:
        """Whom a bearer token speaks for. Raises Unauthenticated."""
        keys = self.api_keys if is_api_key(token) else self.sessions
        return await keys.identify(token)


@dataclass
class Context:
    """One request, or one operation on a websocket. `token`: the bearer token that came with it;
    `place`: the websocket's among the open ones; `tells_cost`: whether the answer is to tell it;
    `at_once`: what tells a subscriber of events without its task, where the server can;
    `may_presume`: whether a customer's token may be taken at its word while its session is looked
    up. Only for what reads, and whose answer waits for `settle_presumption`."""

    services: Services
    token: str | None
    caller: Caller
    place: Place | None = None
    tells_cost: bool = False
    at_once: AtOnce | None = None
    connection_params: dict[str, Any] = field(default_factory=dict)
    _identifying: asyncio.Task[Identity] | None = None
    _identity: Identity | None = None
    may_presume: bool = False
    _presumption: Presumption | None = None
    _refusal: Exception | None = None

    @cached_property
    def user_by_id(self) -> DataLoader[str, User | None]:
        return DataLoader(_load_users, cache=False)

    @cached_property
    def notification_by_key(self) -> DataLoader[tuple[str, str], Notification | None]:
        return DataLoader(self._load_notifications, cache=False)

    def again(self, tells_cost: bool, at_once: AtOnce | None) -> Context:
        """The same caller's next operation."""
        return Context(self.services, self.token, self.caller, self.place, tells_cost, at_once)

    async def viewer(self, scope: Scope | None = None) -> Identity:
        """Who is asking. Raises Unauthenticated, and Forbidden for an API key without the scope:
        without one, for all of them."""
        viewer = self._presumed() or await self.identity()
        if viewer.scopes is not None and scope not in viewer.scopes:
            needed = f"the scope {scope.name}" if scope else "a login instead"
            raise Forbidden(f"An API key may not do this: it needs {needed}.")
        return viewer

    async def identity(self) -> Identity:
        """Whom the bearer token speaks for, whatever they may do. Raises Unauthenticated."""
        if self.token is None:
            raise Unauthenticated(
                "Log in first: send the header Authorization: Bearer <accessToken>."
            )
        if self._refusal is not None:
            raise self._refusal
        if self._identity is not None:
            return self._identity
        if (presumption := self._presumption) is not None:
            await presumption.confirm()
            return presumption.identity
        if self._identifying is None:
            self._identifying = asyncio.ensure_future(self.services.identify(self.token))
            self._identifying.add_done_callback(self._heard)
        return await asyncio.shield(self._identifying)

    async def settle_presumption(self) -> bool:
        """Stop presuming. Whether what was read may be told: what was presumed was so, or nothing
        was. Otherwise it is to be read again, and is refused then; `forget_refusal` afterwards."""
        presumption, self._presumption = self._presumption, None
        self.may_presume = False
        try:
            if presumption is not None:
                await presumption.confirm()
        except Exception as error:
            self._refusal = error
        return self._refusal is None

    def forget_refusal(self) -> None:
        """It holds on to whom it was told, and so to this."""
        self._refusal = None

    async def follower(self) -> Identity:
        """Who subscribes: the viewer, asked for until the database is back."""
        if self.token is None:
            return await self.viewer()
        return await self.services.live.ask(self.viewer, "a subscription's viewer")

    async def subject(self, user_id: str | None, scope: Scope) -> str:
        """Whom a verb is about: the viewer, or another user for a backend or an admin."""
        viewer = await self.viewer(scope)
        if user_id is None or user_id == viewer.user_id:
            return viewer.user_id
        if viewer.role not in (Role.SERVICE, Role.ADMIN):
            raise Forbidden("Only the roles SERVICE and ADMIN may act for another user.")
        return user_id

    async def owner(self, user_id: str | None) -> str:
        """Whose things are looked at: the viewer's, or another's by an admin, which is logged.
        Raises Forbidden and NotFound."""
        viewer = await self.viewer()
        if user_id is None or user_id == viewer.user_id:
            return viewer.user_id
        if viewer.role is not Role.ADMIN:
            raise Forbidden("Only the role ADMIN may look at another user's.")
        if await self.user_by_id.load(user_id) is None:
            raise NotFound(f"There is no user {user_id}.")
        await self.note_look(user_id)
        return user_id

    async def note_look(self, user_id: str) -> None:
        """Log that an admin looks at another user: before what is found is told."""
        viewer = await self.identity()
        if viewer.role is Role.ADMIN and user_id != viewer.user_id:
            await self.note("looked_at_another", user=user_id)

    async def note(self, action: str, **about: object) -> None:
        """Log what the viewer does as an admin, by ids: nothing that people wrote."""
        log.info(action, by=(await self.identity()).user_id, **about)

    async def source(self) -> str:
        """The viewer as the source of events: their ids are the viewer's own."""
        return f"urn:tidings:user:{(await self.identity()).user_id}"

    async def _load_notifications(
        self, keys: list[tuple[str, str]]
    ) -> Sequence[Notification | None]:
        found: dict[tuple[str, str], Notification] = {}
        for user_id in {user_id for user_id, _ in keys}:
            ids = [id for owner, id in keys if owner == user_id]
            rows = await Notification.some(user_id, ids, self.services.clock.now())
            found |= {(user_id, str(row.id)): row for row in rows}
        return [found.get(key) for key in keys]

    def _presumed(self) -> Identity | None:
        """Whom the token names, where that is presumed: which is asked once."""
        if self.may_presume and self.token and not is_api_key(self.token):
            self.may_presume = False
            with suppress(Unauthenticated):  # `identity` tells why
                self._presumption = self.services.sessions.presume(self.token)
        return self._presumption.identity if self._presumption else None

    def _heard(self, task: asyncio.Task[Identity]) -> None:
        """Who asks next after an error asks anew. It may have nobody left to hear it."""
        if not (task.cancelled() or task.exception()):
            self._identity = task.result()
        self._identifying = None


Info: TypeAlias = strawberry.Info[Context, None]


class _Allow(BasePermission):
    def __init__(self, roles: Sequence[Role], scope: Scope | None) -> None:
        self._roles = roles
        self._scope = scope

    async def has_permission(self, source: Any, info: Info, **kwargs: Any) -> bool:
        viewer = await info.context.viewer(self._scope)
        if viewer.role not in self._roles:
            names = " or ".join(role.name for role in self._roles)
            raise Forbidden(f"This needs the role {names}; yours is {viewer.role.name}.")
        return True


def only(*roles: Role, scope: Scope | None = None) -> list[FieldExtension]:
    """Field extensions that let in these roles alone, and of API keys those with the scope."""
    return [PermissionExtension([_Allow(roles, scope)], use_directives=False)]


async def _load_users(ids: list[str]) -> Sequence[User | None]:
    found = await User.by_ids(ids)
    return [found.get(id) for id in ids]
