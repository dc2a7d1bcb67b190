"""Whether several servers have answered the same: byte for byte, once their JSON is parsed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_LONGEST: Final = 200  # characters of a value that are shown


class Different(Exception):
    """Two servers have answered differently; the message names them and the first place."""


def same_answers(answers: Mapping[str, bytes]) -> None:
    """`answers`: the body of each server's answer, by its name; one at least.

    The order of an object's keys tells nothing, and 1.0 is 1, as in JSON. Raises Different, also
    for what is no JSON, has errors, or has no data.
    """
    parsed = {name: _data(name, body) for name, body in answers.items()}
    first, *others = parsed
    for other in others:
        for place, one, two in _differences("data", parsed[first], parsed[other]):
            raise Different(
                f"{first} and {other} differ at {place}:\n"
                f"  {first}: {_shown(one)}\n  {other}: {_shown(two)}"
            )


def _data(name: str, body: bytes) -> Any:
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise Different(f"{name} has not answered in JSON: {body[:_LONGEST]!r}") from error
    if not isinstance(answer, dict) or answer.get("errors") or answer.get("data") is None:
        raise Different(f"{name} has answered with an error: {_shown(answer)}")
    return answer["data"]


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


_MISSING: Final = _Missing()


def _differences(place: str, one: Any, two: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where they differ, and what is there in each."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in {**one, **two}:
            there = one.get(key, _MISSING), two.get(key, _MISSING)
            yield from _differences(f"{place}.{key}", *there)
    elif isinstance(one, list) and isinstance(two, list):
        if len(one) != len(two):
            yield f"{place}.length", len(one), len(two)
        for index, (left, right) in enumerate(zip(one, two, strict=False)):
            yield from _differences(f"{place}[{index}]", left, right)
    elif isinstance(one, bool) is not isinstance(two, bool) or one != two:
        yield place, one, two


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, _Missing) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
