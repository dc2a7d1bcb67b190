"""Email addresses: how they are kept, and how they are found again."""

from __future__ import annotations

from typing import Final

from email_validator import EmailNotValidError, validate_email

from services.shared.errors import BadInput

LONGEST: Final = 254  # RFC 5321; looked at first, since reading an address composes its characters


def normalised_email(email: str) -> str:
    """Raises BadInput for what is no address."""
    if len(email) > LONGEST:
        raise BadInput(
            f"This is not an email address: one has {LONGEST} characters at most.", "input.email"
        )
    try:
        return validate_email(email.strip(), check_deliverability=False).normalized
    except (EmailNotValidError, UnicodeError) as error:
        raise BadInput(f"This is not an email address: {error}", "input.email") from error


def email_key(email: str) -> str:
    """The address folded for search: the same for all of its spellings."""
    try:
        return normalised_email(email).casefold()
    except BadInput:
        return email.strip().casefold()
