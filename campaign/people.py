"""Who is in the campaign's shop: made by the product's own code, before anything is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from campaign.environment import Endpoints
from campaign.journal import Person
from campaign.probe import READERS
from services import host
from services.notifications.models import Notification
from services.shared.vocabulary import MARKETING_TYPES, Channel, NotificationType, Role
from services.users.preferences import ChannelChange, TypeChange, Wishes
from services.users.service import Registration
from services.users.sessions import Caller
from services.users.tokens import AccessTokens, SigningKeys
from tests.servers import until

CUSTOMERS, SCHEDULED = 60, 20
CAPPED: Final = range(1, CUSTOMERS, 12)  # customers with email and push, who change no preferences
CLUB: Final = range(2, CUSTOMERS, 4)  # customers with a tag
TAG: Final = "club"
_CHANNELS: Final = (Channel.EMAIL, Channel.WEB_PUSH)
_WELCOME_SECONDS: Final = 30.0
_TOKEN_LIFE: Final = timedelta(days=7)


@dataclass(frozen=True)
class Cast:
    customers: Sequence[Person]
    schedules: Sequence[Person]
    probes: Sequence[Person]
    backend: Person
    admin: Person

    @property
    def club(self) -> Sequence[Person]:
        return [self.customers[number] for number in CLUB]

    @property
    def all(self) -> Sequence[Person]:
        return [*self.customers, *self.schedules, *self.probes, self.backend, self.admin]


@dataclass(frozen=True)
class _Clock:
    read: Callable[[], datetime]

    def now(self) -> datetime:
        now = self.read()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


class _Registrar:
    """Who lets people in past the gateway."""

    def __init__(self, runtime: host.Runtime, tokens: AccessTokens, seed: int) -> None:
        self._runtime = runtime
        self._tokens = tokens
        self._seed = seed

    async def enter(
        self,
        name: str,
        role: Role,
        refuses: Sequence[NotificationType] = (),
        channels: Sequence[Channel] = (),
    ) -> Person:
        refused = [TypeChange(type_, False, ()) for type_ in refuses]
        wanted = tuple(ChannelChange(channel, True) for channel in channels)
        given = [TypeChange(type_, None, wanted) for type_ in MARKETING_TYPES if wanted]
        wishes = Wishes(types=(*refused, *given))
        email = f"{name}-{self._seed}@campaign.example"
        user = await self._runtime.users.create(
            Registration(name, email, "a password for campaigns", preferences=wishes), role
        )
        login = await self._runtime.sessions.open(user, Caller("127.0.0.1"))
        session_id = login.refresh_token.partition(".")[0]
        id = str(user.id)
        token, _ = self._tokens.issue(id, role, session_id)
        return Person(
            id=id, role=role.value, token=token, refuses=tuple(refuses), channels=tuple(channels)
        )

    async def customer(self, number: int) -> Person:
        channels = _CHANNELS if number in CAPPED else ()
        person = await self.enter(f"customer{number}", Role.USER, channels=channels)
        if number in CLUB:
            await self._runtime.users.set_tags(person.id, [TAG])
        return person


async def cast(endpoints: Endpoints, seed: int, now: Callable[[], datetime]) -> Cast:
    """Register everybody straight in the database; return when all have been welcomed."""
    settings = endpoints.settings.model_copy(
        update={
            "mongodb_url": endpoints.mongodb_url,
            "mongodb_database": endpoints.database,
            "rabbitmq_url": "",
            "jwt_secret": endpoints.jwt_secret,
            "bcrypt_cost": 4,
        }
    )
    clock = _Clock(now)
    tokens = AccessTokens(SigningKeys(endpoints.jwt_secret), _TOKEN_LIFE, clock, kept=1)
    async with host.open_runtime(settings, clock) as runtime:
        people = _Registrar(runtime, tokens, seed)
        promotion = NotificationType.PROMOTION
        found = Cast(
            customers=[await people.customer(number) for number in range(CUSTOMERS)],
            schedules=[await people.enter(f"scheduled{n}", Role.USER) for n in range(SCHEDULED)],
            probes=[
                await people.enter(f"probe{n}", Role.USER, (promotion,)) for n in range(READERS)
            ],
            backend=await people.enter("backend", Role.SERVICE),
            admin=await people.enter("admin", Role.ADMIN, (promotion,)),
        )
        welcomed = sum(not person.refuses for person in found.all)

        async def all_welcomed() -> bool:
            return await Notification.find_all().count() >= welcomed

        await until(all_welcomed, _WELCOME_SECONDS)
    return found
