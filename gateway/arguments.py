"""Arguments of lists, checked: which part of a list is asked for."""

from __future__ import annotations

from typing import Annotated

import strawberry
from bson import ObjectId
from strawberry import ID

from services.notifications.cursor import Cursor, CursorRefused
from services.notifications.queries import Span
from services.shared.errors import BadInput
from services.shared.settings import Settings
from services.users.models import object_id

Whose = Annotated[
    ID | None, strawberry.argument(description="Another's than the viewer's: for ADMIN.")
]


def span_of(
    first: int | None, after: str | None, last: int | None, before: str | None, settings: Settings
) -> Span:
    """The part that a connection's arguments name. Raises BadInput with the argument's name."""
    if first is not None and last is not None:
        raise BadInput("Give first or last, not both.", "last")
    size = last if last is not None else first
    if size is None:
        size = settings.page_size
    if not 0 <= size <= settings.max_page_size:
        raise BadInput(
            f"Ask for 0 to {settings.max_page_size} at once, and page on with the cursor.",
            "last" if last is not None else "first",
        )
    return Span(
        size=size,
        after=decode_cursor(after, "after"),
        before=decode_cursor(before, "before"),
        from_end=last is not None,
    )


def checked_first(first: int, settings: Settings) -> int:
    """How many a list without a cursor may have. Raises BadInput."""
    if not 0 <= first <= settings.max_page_size:
        raise BadInput(f"Ask for 0 to {settings.max_page_size} at once.", "first")
    return first


def decode_cursor(text: str | None, field: str) -> Cursor | None:
    """Raises BadInput for what is not a cursor."""
    if text is None:
        return None
    try:
        return Cursor.decode(text)
    except CursorRefused as error:
        raise BadInput(
            "This is not a cursor: give one as a page or a subscription gave it.", field
        ) from error


def row_id(cursor: str | None, field: str) -> ObjectId | None:
    """The row that a page ended with whose cursors are ids. Raises BadInput for what is none."""
    id = object_id(cursor) if cursor is not None else None
    if cursor is not None and id is None:
        raise BadInput("This is not a cursor: give one as a page gave it.", field)
    return id
