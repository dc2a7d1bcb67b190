"""Answers in JSON: of a request, and of all that is told over websockets."""

from __future__ import annotations

from typing import Final

import msgspec
from bson.int64 import Int64


def _number(value: object) -> int:
    """What the database answers for a long integer where it is read quickly (store.py): content is
    told as it was given. Looking for them in every row costs more than the encoding."""
    if isinstance(value, Int64):
        return int(value)
    raise NotImplementedError


encode: Final = msgspec.json.Encoder(enc_hook=_number).encode
