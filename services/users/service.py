"""What users do: register, log in and out, say what they want to hear, and shop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from beanie import PydanticObjectId
from email_validator import EmailNotValidError, validate_email
from pymongo.errors import DuplicateKeyError

from services.shared.clock import Clock, zone_names
from services.shared.content import ContentRefused, check_content
from services.shared.errors import BadInput, Conflict, NotFound, Unauthenticated
from services.shared.events import Event, PreferencesChanged, UserActivity, UserRegistered
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session as Transaction
from services.shared.store import Store, insert_new
from services.shared.vocabulary import ActivityKind, Role
from services.users import passwords
from services.users.models import Activity, Session, User, object_id
from services.users.passwords import Passwords
from services.users.preferences import Preferences, TypeChange, merge
from services.users.tokens import AccessTokens, Identity, RefreshToken

LONGEST_NAME: Final = 100
DEFAULT_LOCALE: Final = "en"
DEFAULT_TIMEZONE: Final = "UTC"
_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_TAKEN: Final = "This email is taken: log in, or use another."


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody who registers gives. The paths of its errors start with `input.`."""

    name: str
    email: str
    password: str
    locale: str | None = None
    timezone: str | None = None
    preferences: tuple[TypeChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Login:
    """A session that was just opened or refreshed. `expires_at` is the access token's end."""

    user: User
    access_token: str
    refresh_token: str
    expires_at: datetime


class UserService:
    def __init__(
        self, store: Store, outbox: Outbox, tokens: AccessTokens, clock: Clock, settings: Settings
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._tokens = tokens
        self._clock = clock
        self._settings = settings
        self._passwords = Passwords(settings.bcrypt_cost, settings.bcrypt_at_once)

    async def register(self, registration: Registration, role: Role = Role.USER) -> Login:
        """Make a user and log them in. Raises BadInput, and Conflict for a taken email."""
        user = await self.create(registration, role)
        return await self._open_session(user)

    async def create(self, registration: Registration, role: Role) -> User:
        """Make a user. Raises BadInput, and Conflict for a taken email."""
        user = _new_user(registration, role, self._clock.now())
        if await User.by_email_key(_email_key(registration.email)):  # asked before time is spent
            raise Conflict(_TAKEN)
        user.password_hash = await self._passwords.hash(registration.password)

        async def write(transaction: Transaction) -> None:
            user.id = PydanticObjectId()
            await user.insert(session=transaction)
            welcome = UserRegistered(user_id=str(user.id), name=user.name)
            await self._outbox.put([self._event(welcome)], transaction)

        try:
            await self._store.transact(write)
        except DuplicateKeyError as error:
            raise Conflict(_TAKEN) from error
        self._outbox.wake()
        return user

    async def log_in(self, email: str, password: str) -> Login:
        """Raises Unauthenticated, alike for an unknown email and a wrong password."""
        user = await User.by_email_key(_email_key(email))
        known = user.password_hash if user else None
        if not await self._passwords.matches(password, known) or user is None:
            raise Unauthenticated("Email or password is wrong.")
        return await self._open_session(user)

    async def refresh(self, refresh_token: str) -> Login:
        """Exchange a refresh token, once. Using an old one again ends the session."""
        token = RefreshToken.parse(refresh_token)
        renewed = RefreshToken.make(token.session_id)
        now = self._clock.now()
        session_key = object_id(token.session_id)
        session = await Session.get_pymongo_collection().find_one_and_update(
            {"_id": session_key, "token_hash": token.hash, "expires_at": {"$gt": now}},
            {
                "$set": {
                    "token_hash": renewed.hash,
                    "former_hash": token.hash,
                    "expires_at": now + self._session_life,
                }
            },
        )
        user = await User.by_id(session["user_id"]) if session else None
        if user is None:
            await Session.find({"_id": session_key, "former_hash": token.hash}).delete()
            raise Unauthenticated("The refresh token is used up or not valid: log in again.")
        return self._logged_in(user, renewed)

    async def log_out(self, session_id: str) -> None:
        """End the session: its access and refresh tokens are refused from now on."""
        await Session.find({"_id": object_id(session_id)}).delete()

    def read_token(self, access_token: str) -> Identity:
        """Whom the token names, be its session open or not. Raises Unauthenticated."""
        return self._tokens.identify(access_token)

    async def identify(self, access_token: str) -> Identity:
        """Whom the token speaks for. Raises Unauthenticated, also when the session has ended."""
        identity = self.read_token(access_token)
        if not await Session.is_open(identity.session_id, self._clock.now()):
            raise Unauthenticated("The session has ended: log in again.")
        return identity

    async def update_preferences(
        self, user_id: str, changes: Sequence[TypeChange], version: int | None
    ) -> Preferences:
        """Merge the changes. `version`, when given, must be the current one (Conflict)."""

        async def write(transaction: Transaction) -> User:
            user = await User.get(PydanticObjectId(user_id), session=transaction)
            if user is None:
                raise NotFound("The user does not exist any more.")
            if version is not None and version != user.preferences_version:
                raise Conflict(
                    f"The preferences have version {user.preferences_version}, not {version}: "
                    "read them again and repeat the change."
                )
            user.choices = merge(user.choices, changes, "input.types")
            user.preferences_version += 1
            await User.get_pymongo_collection().update_one(
                {"_id": user.id},
                {
                    "$set": {
                        "choices": user.model_dump(mode="json")["choices"],
                        "preferences_version": user.preferences_version,
                    }
                },
                session=transaction,
            )
            changed = PreferencesChanged(user_id=user_id, version=user.preferences_version)
            await self._outbox.put([self._event(changed)], transaction)
            return user

        user = await self._store.transact(write)
        self._outbox.wake()
        return user.preferences

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

    @property
    def _session_life(self) -> timedelta:
        return timedelta(seconds=self._settings.refresh_token_seconds)

    def _event(self, data: UserRegistered | PreferencesChanged | UserActivity) -> Event:
        return Event.of(data, time=self._clock.now())

    async def _open_session(self, user: User) -> Login:
        now = self._clock.now()
        session_id = PydanticObjectId()
        token = RefreshToken.make(str(session_id))
        await Session(
            id=session_id,
            user_id=str(user.id),
            token_hash=token.hash,
            created_at=now,
            expires_at=now + self._session_life,
        ).insert()
        return self._logged_in(user, token)

    def _logged_in(self, user: User, refresh_token: RefreshToken) -> Login:
        access_token, expires_at = self._tokens.issue(
            str(user.id), user.role, refresh_token.session_id
        )
        return Login(user, access_token, str(refresh_token), expires_at)


def _new_user(registration: Registration, role: Role, now: datetime) -> User:
    """The user without a password hash. Raises BadInput."""
    name = registration.name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise BadInput(f"A name has 1 to {LONGEST_NAME} characters.", "input.name")
    _check_text(name, "input.name")
    email = _normalised_email(registration.email)
    if not passwords.SHORTEST <= len(registration.password) <= passwords.LONGEST:
        raise BadInput(
            f"A password has {passwords.SHORTEST} to {passwords.LONGEST} characters.",
            "input.password",
        )
    return User(
        name=name,
        email=email,
        email_key=_email_key(email),
        password_hash=b"",
        role=role,
        locale=_checked_locale(registration.locale),
        timezone=_checked_timezone(registration.timezone),
        created_at=now,
        choices=merge({}, registration.preferences, "input.preferences.types"),
    )


def _normalised_email(email: str) -> str:
    try:
        return validate_email(email.strip(), check_deliverability=False).normalized
    except (EmailNotValidError, UnicodeError) as error:
        raise BadInput(f"This is not an email address: {error}", "input.email") from error


def _email_key(email: str) -> str:
    """The address folded for search: the same for all of its spellings."""
    try:
        return _normalised_email(email).casefold()
    except BadInput:
        return email.strip().casefold()


def _checked_locale(locale: str | None) -> str:
    if locale is None:
        return DEFAULT_LOCALE
    if not _LOCALE.fullmatch(locale):
        raise BadInput("A locale is a BCP 47 tag such as en or de-AT.", "input.locale")
    return locale


def _checked_timezone(timezone: str | None) -> str:
    if timezone is None:
        return DEFAULT_TIMEZONE
    if timezone not in zone_names():
        raise BadInput("A timezone is an IANA name such as Europe/Vienna.", "input.timezone")
    return timezone


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
