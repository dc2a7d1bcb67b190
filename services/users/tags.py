"""Tags: words by which a shop tells its customers apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput


@dataclass(frozen=True, slots=True)
class TagLimits:
    """How many tags a user has at most, and how many characters a tag."""

    count: int
    length: int


def checked_tags(tags: Sequence[str], field: str, limits: TagLimits) -> list[str]:
    """As they are stored: each once, in NFC, without blanks around it, sorted. Raises BadInput."""
    if len(tags) > limits.count:
        raise BadInput(f"A user has {limits.count} tags at most (MAX_TAGS_PER_USER).", field)
    return sorted({_checked(tag, f"{field}[{n}]", limits.length) for n, tag in enumerate(tags)})


def _checked(tag: str, field: str, longest: int) -> str:
    try:
        check_content(tag, "tag")
    except ContentRefused as error:
        raise BadInput(str(error), field) from error
    stripped: str = composed(tag.strip())
    if not 1 <= len(stripped) <= longest:
        raise BadInput(f"A tag has 1 to {longest} characters (MAX_TAG_LENGTH).", field)
    return stripped
