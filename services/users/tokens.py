"""Tokens: an access token is a signed JWT for minutes, a refresh token is opaque and used once."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import jwt

from services.shared.clock import Clock
from services.shared.errors import CannotStart, Unauthenticated
from services.shared.settings import Settings
from services.shared.vocabulary import Role, Scope

SHORTEST_SECRET: Final = 32
_ALGORITHM: Final = "HS256"
_TYPE: Final = "at+jwt"  # RFC 9068: nothing else that we may ever sign is taken for one
_NAME: Final = "tidings"
_CLAIMS: Final = ("exp", "iat", "sub", "jti", "sid", "role")
_LEEWAY: Final = timedelta(seconds=60)  # what the clocks of those who sign may differ


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a bearer token speaks for, in which session, until when.

    `scopes`: all that an API key may do, which has no session and no end; None: whatever the role
    may.
    """

    user_id: str
    role: Role
    session_id: str = ""
    expires_at: datetime | None = None
    scopes: frozenset[Scope] | None = None


class SigningKeys:
    """The key that signs, and all that are accepted, by key id (`kid`)."""

    def __init__(self, secret: str, others: Sequence[str] = ()) -> None:
        self.current = _key_id(secret)
        self.accepted: Mapping[str, str] = {_key_id(one): one for one in (*others, secret)}

    @property
    def secret(self) -> str:
        return self.accepted[self.current]

    def and_accepting(self, others: Sequence[str]) -> SigningKeys:
        """These, and others that are accepted too."""
        return SigningKeys(self.secret, (*self.accepted.values(), *others))

    def sign(self, type_: str, audience: str, claims: Mapping[str, Any]) -> str:
        """A token of this type for this audience. One of another counts for nothing there."""
        headers = {"typ": type_, "kid": self.current}
        named = {"iss": _NAME, "aud": audience, **claims}
        return jwt.encode(named, self.secret, _ALGORITHM, headers)

    def read(
        self, token: str, type_: str, audience: str, required: Sequence[str]
    ) -> dict[str, Any]:
        """The claims of a token of this type for this audience that one of our keys signed.

        Its times are the caller's to compare, with a clock of ours. Raises InvalidTokenError.
        """
        header = jwt.get_unverified_header(token)
        if header.get("typ") != type_:
            raise jwt.InvalidTokenError(f"It is no {type_}.")
        claims: dict[str, Any] = jwt.decode(
            token,
            self._named(header),
            algorithms=[_ALGORITHM],
            audience=audience,
            issuer=_NAME,
            options={
                "require": ["iss", "aud", *required],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
        return claims

    def _named(self, header: Mapping[str, Any]) -> str:
        """The key that a token's header names. Raises InvalidTokenError for any but ours."""
        key_id = header.get("kid")
        if not isinstance(key_id, str) or key_id not in self.accepted:
            raise jwt.InvalidTokenError("It was signed with none of our keys.")
        return self.accepted[key_id]


class AccessTokens:
    """Those that were read lately, up to `kept` of them, are known by their hashes: their
    signatures are checked once. Their times and sessions are looked at each time."""

    def __init__(self, keys: SigningKeys, life: timedelta, clock: Clock, kept: int) -> None:
        self._keys = keys
        self._life = life
        self._clock = clock
        self._kept = kept
        self._known: OrderedDict[bytes, tuple[datetime, datetime, Identity]] = OrderedDict()

    def issue(self, user_id: str, role: Role, session_id: str) -> tuple[str, datetime]:
        """A token and the instant at which it ends."""
        now = self._clock.now()
        expires_at = (now + self._life).replace(microsecond=0)
        claims = {
            "sub": user_id,
            "sid": session_id,
            "role": role.value,
            "jti": uuid4().hex,
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
        }
        return self._keys.sign(_TYPE, _NAME, claims), expires_at

    def identify(self, token: str) -> Identity:
        """Raises Unauthenticated that says whether to refresh or to log in again.

        Its times are compared with our own clock, which is the database's.
        """
        now = self._clock.now()
        try:
            begins, expires_at, identity = self._read(token)
            if begins > now + _LEEWAY:
                raise jwt.ImmatureSignatureError("It does not count yet.")
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, OSError) as error:
            raise Unauthenticated("The access token is not valid: log in again.") from error
        if expires_at <= now:
            raise Unauthenticated("The access token has expired: call refreshSession.")
        return identity

    def _read(self, token: str) -> tuple[datetime, datetime, Identity]:
        """When it begins and ends to count, and for whom. Raises what a token may be refused for,
        but not for its times."""
        key = hashed(token)
        known = self._known.get(key)
        if known is None:
            claims = self._keys.read(token, _TYPE, _NAME, _CLAIMS)
            begins, expires_at = (
                datetime.fromtimestamp(at, UTC)
                for at in (max(claims["iat"], claims.get("nbf", 0)), claims["exp"])
            )
            if not isinstance(claims["sid"], str):
                raise jwt.InvalidTokenError("It names no session.")
            identity = Identity(claims["sub"], Role(claims["role"]), claims["sid"], expires_at)
            known = self._known[key] = (begins, expires_at, identity)
            if len(self._known) > self._kept:
                self._known.popitem(last=False)
        return known


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """`<session id>.<family>.<secret>`; only hashes of the two secrets are kept.

    The secret is another each time and works once. The family stays the session's, so that whoever
    shows it with a secret that no longer counts holds a token that was used before.
    """

    session_id: str
    family: str
    secret: str

    @classmethod
    def make(cls, session_id: str) -> RefreshToken:
        return cls(session_id, secrets.token_urlsafe(24), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> RefreshToken:
        session_id, _, rest = text.partition(".")
        family, _, secret = rest.partition(".")
        return cls(session_id, family, secret)

    def renewed(self) -> RefreshToken:
        return RefreshToken(self.session_id, self.family, secrets.token_urlsafe(32))

    @property
    def family_hash(self) -> bytes:
        return hashed(self.family)

    @property
    def hash(self) -> bytes:
        return hashed(self.secret)

    def __str__(self) -> str:
        return f"{self.session_id}.{self.family}.{self.secret}"


def hashed(secret: str) -> bytes:
    """What is kept of a secret of ours: it is random and long, so a plain hash hides it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def signing_keys(settings: Settings) -> SigningKeys:
    """The keys of access tokens: JWT_SECRET, or one made and kept in DATA_DIR, and the accepted.

    Raises CannotStart for a short one, and for none where several processes would need the same.
    """
    secret = settings.jwt_secret
    if not secret and settings.mongodb_url:
        raise CannotStart(
            "JWT_SECRET is not set: with MONGODB_URL every process needs the same one. "
            'Make one with: python3 -c "import secrets; print(secrets.token_urlsafe(48))"'
        )
    others = (
        *_named("JWT_ACCEPTED_SECRETS", settings.jwt_accepted_secrets),
        *_named("UNSUBSCRIBE_ACCEPTED_SECRETS", settings.unsubscribe_accepted_secrets),
    )
    for name, given in (("JWT_SECRET", secret), *others):
        if given and len(given.encode()) < SHORTEST_SECRET:
            raise CannotStart(f"{name} is too short: it needs {SHORTEST_SECRET} bytes or more.")
    secret = secret or _kept_secret(settings.data_dir / "jwt.secret")
    return SigningKeys(secret, settings.jwt_accepted_secrets)


def _named(setting: str, others: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"A secret of {setting}", other or "-") for other in others]


def _key_id(secret: str) -> str:
    """A secret's name, which tells nothing of it and needs no list of names beside it."""
    return hashlib.sha256(b"kid:" + secret.encode()).hexdigest()[:16]


def _kept_secret(path: Path) -> str:
    """Made in one step: a half-written one would be a weak one from then on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            new = path.with_name(f"{path.name}.{uuid4().hex}")
            new.touch(mode=0o600)
            new.write_text(secrets.token_urlsafe(48))
            with suppress(FileExistsError):
                path.hardlink_to(new)
            new.unlink()
        secret = path.read_text()
    except (OSError, UnicodeError) as error:
        raise CannotStart(f"The secret in {path} can't be read or made: {error}.") from error
    if len(secret.encode()) < SHORTEST_SECRET:
        raise CannotStart(f"The secret in {path} is too short: delete the file, and log in anew.")
    return secret
