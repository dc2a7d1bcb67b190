"""What can go wrong, as one tree. Raise early, and say what the caller can do about it.

    DomainError                    code
    ├── Unauthenticated            UNAUTHENTICATED       no token, or one that no longer counts
    ├── Forbidden                  FORBIDDEN             the viewer's role may not do this
    ├── NotFound                   NOT_FOUND             no such thing, or not the viewer's
    ├── BadInput (field)           BAD_USER_INPUT        the input named by `field` must change
    ├── Conflict                   CONFLICT              somebody else was there first
    ├── Resync                     RESYNC                a cursor that can't be resumed: read anew
    ├── RateLimited (retry_after)  RATE_LIMITED          too often: again in so many seconds
    ├── TooComplex                 QUERY_TOO_COMPLEX     the document asks for too much
    └── Unavailable                SERVICE_UNAVAILABLE   database or broker is away: try again

The gateway turns `code` into `extensions.code`; a worker dead-letters the event with the message.
"""

from __future__ import annotations

from math import ceil
from typing import Any, ClassVar


class DomainError(Exception):
    """Root of all errors that are meant to be read by a caller."""

    code: ClassVar[str]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def extensions(self) -> dict[str, Any]:
        """What GraphQL's `extensions` carry: always `code`, and what else the error knows."""
        return {"code": self.code}


class Unauthenticated(DomainError):
    code = "UNAUTHENTICATED"


class Forbidden(DomainError):
    code = "FORBIDDEN"


class NotFound(DomainError):
    code = "NOT_FOUND"


class BadInput(DomainError):
    """`field` is the path of the input at fault, as the caller wrote it: `input.email`."""

    code = "BAD_USER_INPUT"

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field

    @property
    def extensions(self) -> dict[str, Any]:
        return {"code": self.code, "field": self.field}


class Conflict(DomainError):
    code = "CONFLICT"


class Resync(DomainError):
    code = "RESYNC"


class RateLimited(DomainError):
    """`retry_after`: whole seconds until it may be tried again, at least one."""

    code = "RATE_LIMITED"

    def __init__(self, seconds: float) -> None:
        self.retry_after = max(1, ceil(seconds))
        super().__init__(f"Too many attempts: try again in {self.retry_after} s.")

    @property
    def extensions(self) -> dict[str, Any]:
        return {"code": self.code, "retryAfter": self.retry_after}


class TooComplex(DomainError):
    code = "QUERY_TOO_COMPLEX"


class Unavailable(DomainError):
    code = "SERVICE_UNAVAILABLE"


class CannotStart(Exception):
    """The process can't start; the message is one sentence that tells the operator what to do."""
