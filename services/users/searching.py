"""Finding users by what an operator knows of them: the beginning of an address or a name, or an id.

Each way is a range of an index, so whatever is typed is text and no pattern, and costs what is
found.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Sequence
from typing import Final

from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput
from services.users.addresses import LONGEST
from services.users.models import FOLDED, User

_FIELD: Final = "search"
_LAST: Final = "\U0010ffff"  # in the order of characters
_IGNORED: Final = ("Mn", "Me", "Cf")  # marks, and what is not seen, in the order of names
_LAST_FOLDED: Final = "\uffff"  # in that of the collation: UTS 35 has it for ranges of prefixes


async def search(text: str, limit: int) -> Sequence[User]:
    """The one with this id, then those whose address begins so, then those whose name does; each
    once, up to `limit`. Raises BadInput."""
    text = _checked(text)
    if not limit:
        return []
    user, *prefixed = await asyncio.gather(
        User.by_id(text), _by_address(text, limit), _by_name(text, limit)
    )
    found = {one.id: one for one in ([user] if user else [])}
    for users in prefixed:
        for one in users:
            found.setdefault(one.id, one)
    return list(found.values())[:limit]


async def _by_address(text: str, limit: int) -> list[User]:
    key = text.casefold()
    there = {"email_key": {"$gte": key, "$lt": key + _LAST}}
    return await User.find(there).sort("email_key").limit(limit).to_list()


async def _by_name(text: str, limit: int) -> list[User]:
    there = {"name": {"$gte": text, "$lte": text + _LAST_FOLDED}}
    found = User.find(there, collation=FOLDED).sort("name").limit(limit)
    return await found.to_list()


def _checked(text: str) -> str:
    text = text.strip()
    if not 1 <= len(text) <= LONGEST:
        raise BadInput(
            f"Type how an address or a name begins, or an id: 1 to {LONGEST} characters.", _FIELD
        )
    try:
        check_content(text, _FIELD)
    except ContentRefused as error:
        raise BadInput(str(error), _FIELD) from error
    text = str(composed(text))
    if all(unicodedata.category(one) in _IGNORED for one in text):
        raise BadInput("Type at least one letter, digit or sign: that was none to be seen.", _FIELD)
    return text
