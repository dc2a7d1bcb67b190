"""Access tokens of the people that filling.py makes."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Final

from bench.filling import session_id, user_id
from bench.world import SECRET
from services.shared.clock import SystemClock
from services.shared.vocabulary import Role
from services.users.tokens import AccessTokens, SigningKeys

_LIFE: Final = timedelta(days=1)


@cache
def token(number: int) -> str:
    """Of the user who has this number."""
    issued, _ = _tokens().issue(user_id(number), Role.USER, session_id(number))
    return issued


@cache
def _tokens() -> AccessTokens:
    return AccessTokens(SigningKeys(SECRET, ()), _LIFE, SystemClock(), kept=1)
