"""What users do: register and shop. What they say they want to hear is in `choosing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from beanie import PydanticObjectId
from pymongo.errors import DuplicateKeyError

from services.shared.clock import Clock
from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput, Conflict, NotFound
from services.shared.events import Event, UserActivity, UserRegistered
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session as Transaction
from services.shared.store import Store, insert_new
from services.shared.throttle import Rate, Throttle
from services.shared.vocabulary import ActivityKind, Role
from services.users.addresses import email_key, normalised_email
from services.users.choosing import Choosing, checked_timezone
from services.users.consent import REGISTRATION
from services.users.models import Activity, User, object_id
from services.users.passwords import Passwords, check_password
from services.users.preferences import Wishes
from services.users.sessions import Caller, Login, Sessions
from services.users.tags import TagLimits, checked_tags
from services.users.traits import LOCALE

LONGEST_NAME: Final = 100
DEFAULT_LOCALE: Final = "en"
_TAKEN: Final = "This email is taken: log in, or use another."


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody who registers gives. The paths of its errors start with `input.`."""

    name: str
    email: str
    password: str
    locale: str | None = None
    timezone: str | None = None
    preferences: Wishes = field(default_factory=Wishes)


class UserService:
    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        sessions: Sessions,
        passwords: Passwords,
        throttle: Throttle,
        choosing: Choosing,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._sessions = sessions
        self._passwords = passwords
        self._throttle = throttle
        self._choosing = choosing
        self._clock = clock
        self._rate = Rate(
            "registration",
            settings.registrations_per_address,
            timedelta(seconds=settings.attempts_seconds),
        )
        self._tag_limits = TagLimits(settings.max_tags_per_user, settings.max_tag_length)

    async def register(self, registration: Registration, caller: Caller) -> Login:
        """Make a customer and log them in.

        Raises BadInput, Conflict for a taken email, and RateLimited: who wants to know whose emails
        are taken learns it slowly.
        """
        await self._throttle.spend(self._rate, caller.address)
        user = await self.create(registration, Role.USER, caller.address)
        return await self._sessions.open(user, caller)

    async def create(self, registration: Registration, role: Role, address: str = "") -> User:
        """Make a user. `address`: who asks for it, if a stranger does. Raises BadInput, Conflict
        for a taken email, and RateLimited."""
        user = _new_user(registration, role, self._clock.now())
        said = self._choosing.fulfil(
            registration.preferences, user, "input.preferences", REGISTRATION
        )
        if await User.by_email_key(user.email_key):  # asked before time is spent
            raise Conflict(_TAKEN)
        user.password_hash = await self._passwords.hash(registration.password, address)

        async def write(transaction: Transaction) -> None:
            user.id = PydanticObjectId()
            user_id = str(user.id)
            await user.insert(session=transaction)
            await self._choosing.record(user_id, said, user_id, transaction)
            welcome = UserRegistered(user_id=user_id, name=user.name)
            await self._outbox.put([self._event(welcome)], transaction)

        try:
            await self._store.transact(write)
        except DuplicateKeyError as error:
            raise Conflict(_TAKEN) from error
        self._outbox.wake()
        return user

    async def set_tags(self, user_id: str, tags: Sequence[str]) -> Sequence[str]:
        """Give a user these tags instead of those they had; as they are stored. Raises BadInput
        and NotFound."""
        stored = checked_tags(tags, "tags", self._tag_limits)
        changed = await User.get_pymongo_collection().update_one(
            {"_id": object_id(user_id)}, {"$set": {"tags": stored}}
        )
        if not changed.matched_count:
            raise NotFound(f"There is no user {user_id}.")
        return stored

    async def track(self, user_id: str, kind: ActivityKind, product_id: str) -> None:
        """Keep what a user did, and tell it. Raises BadInput and NotFound."""
        if not 1 <= len(product_id) <= 200:
            raise BadInput("A productId has 1 to 200 characters.", "input.productId")
        _check_text(product_id, "input.productId")
        if await User.by_id(user_id) is None:
            raise NotFound(f"There is no user {user_id}.")
        event = self._event(UserActivity(user_id=user_id, kind=kind, product_id=product_id))

        async def write(transaction: Transaction) -> None:
            await Activity.get_pymongo_collection().insert_one(
                _activity_row(event), session=transaction
            )
            await self._outbox.put([event], transaction)

        await self._store.transact(write)
        self._outbox.wake()

    async def keep_activities(self, events: Sequence[Event]) -> None:
        """Keep activities that others published. What is kept already is left as it is."""
        await insert_new(Activity, [_activity_row(event) for event in events])

    def _event(self, data: UserRegistered | UserActivity) -> Event:
        return Event.of(data, time=self._clock.now())


def _new_user(registration: Registration, role: Role, now: datetime) -> User:
    """The user without a password hash. Raises BadInput."""
    name = registration.name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise BadInput(f"A name has 1 to {LONGEST_NAME} characters.", "input.name")
    _check_text(name, "input.name")
    name = composed(name)
    email = normalised_email(registration.email)
    check_password(registration.password, "input.password", email=email_key(email))
    if registration.timezone and registration.preferences.timezone:
        raise BadInput("Name the time zone once.", "input.preferences.timezone")
    return User(
        name=name,
        email=email,
        email_key=email_key(email),
        password_hash=b"",
        role=role,
        locale=_checked_locale(registration.locale),
        timezone=checked_timezone(registration.timezone, "input.timezone"),
        created_at=now,
    )


def _checked_locale(locale: str | None) -> str:
    if locale is None:
        return DEFAULT_LOCALE
    if not LOCALE.fullmatch(locale):
        raise BadInput("A locale is a BCP 47 tag such as en or de-AT.", "input.locale")
    return locale


def _check_text(text: str, field: str) -> None:
    try:
        check_content(text, "text")
    except ContentRefused as error:
        raise BadInput(str(error), field) from error


def _activity_row(event: Event) -> dict[str, Any]:
    activity = event.read(UserActivity)
    return {
        "event": event.key,
        "user_id": activity.user_id,
        "product_id": activity.product_id,
        "kind": activity.kind.value,
        "at": event.time,
    }
