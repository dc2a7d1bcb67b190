"""Tokens: an access token is a signed JWT for minutes, a refresh token is opaque and used once."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import jwt

from services.shared.clock import Clock
from services.shared.errors import CannotStart, Unauthenticated
from services.shared.settings import Settings
from services.shared.vocabulary import Role

SHORTEST_SECRET: Final = 32
_ALGORITHM: Final = "HS256"
_NAME: Final = "tidings"
_CLAIMS: Final = ["exp", "iat", "sub", "jti", "aud", "iss", "sid", "role"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a valid access token speaks for, in which session, until when."""

    user_id: str
    role: Role
    session_id: str
    expires_at: datetime


class AccessTokens:
    def __init__(self, secret: str, life: timedelta, clock: Clock) -> None:
        self._secret = secret
        self._life = life
        self._clock = clock

    def issue(self, user_id: str, role: Role, session_id: str) -> tuple[str, datetime]:
        """A token and the instant at which it ends."""
        now = self._clock.now()
        expires_at = (now + self._life).replace(microsecond=0)
        claims = {
            "iss": _NAME,
            "aud": _NAME,
            "sub": user_id,
            "sid": session_id,
            "role": role.value,
            "jti": uuid4().hex,
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
        }
        return jwt.encode(claims, self._secret, _ALGORITHM), expires_at

    def identify(self, token: str) -> Identity:
        """Raises Unauthenticated that says whether to refresh or to log in again."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_NAME,
                issuer=_NAME,
                options={"require": _CLAIMS, "verify_exp": False, "verify_iat": False},
            )
            expires_at = datetime.fromtimestamp(claims["exp"], self._clock.now().tzinfo)
            identity = Identity(claims["sub"], Role(claims["role"]), claims["sid"], expires_at)
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
            raise Unauthenticated("The access token is not valid: log in again.") from error
        if identity.expires_at <= self._clock.now():
            raise Unauthenticated("The access token has expired: call refreshSession.")
        return identity


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """`<session id>.<secret>`; only the secret's hash is kept."""

    session_id: str
    secret: str

    @classmethod
    def make(cls, session_id: str) -> RefreshToken:
        return cls(session_id, secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> RefreshToken:
        session_id, _, secret = text.partition(".")
        return cls(session_id, secret)

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.secret.encode("utf-8", "surrogatepass")).digest()

    def __str__(self) -> str:
        return f"{self.session_id}.{self.secret}"


def signing_secret(settings: Settings) -> str:
    """The secret that signs access tokens: JWT_SECRET, or one made and kept in DATA_DIR.

    Raises CannotStart for a short one, and for none where several processes would need the same.
    """
    secret = settings.jwt_secret
    if not secret and settings.mongodb_url:
        raise CannotStart(
            "JWT_SECRET is not set: with MONGODB_URL every process needs the same one. "
            'Make one with: python3 -c "import secrets; print(secrets.token_urlsafe(48))"'
        )
    if not secret:
        return _kept_secret(settings.data_dir / "jwt.secret")
    if len(secret.encode()) < SHORTEST_SECRET:
        raise CannotStart(f"JWT_SECRET is too short: it needs {SHORTEST_SECRET} bytes or more.")
    return secret


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
