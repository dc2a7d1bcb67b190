"""Documents are parsed and validated once, long ones excepted, and refused as ever."""

from __future__ import annotations

from typing import Any

from strawberry import Schema
from strawberry.types import ExecutionResult

from gateway.documents import LONGEST_KEPT, KnownDocuments, KnownToBeValid
from gateway.schema import make_schema
from services.shared.settings import Settings

SETTINGS = Settings(_env_file=None, kept_documents=7)
CACHES: tuple[Any, Any] = (
    KnownDocuments(SETTINGS.kept_documents).cached_parse_document,
    KnownToBeValid(SETTINGS.kept_documents).cached_validate_document,
)


class Nobody:
    """A caller who asks for nothing beside."""

    tells_cost = False


async def execute(schema: Schema, document: str) -> ExecutionResult:
    return await schema.execute(document, context_value=Nobody())


def kept() -> tuple[int, int]:
    parsed, validated = (cache.cache_info().currsize for cache in CACHES)
    return parsed, validated


async def test_a_document_is_parsed_and_validated_once_and_no_more_are_kept_than_the_limit() -> (
    None
):
    schema = make_schema(SETTINGS)
    for cache in CACHES:
        cache.cache_clear()
    for _ in range(3):
        answer = await execute(schema, "{ __typename }")
        assert answer.data == {"__typename": "Query"}
    assert kept() == (1, 1)
    assert [cache.cache_info().hits for cache in CACHES] == [2, 2]
    for number in range(20):
        await execute(schema, f"{{ a{number}: __typename }}")
    assert kept() == (7, 7)


async def test_a_long_document_is_not_kept() -> None:
    schema = make_schema(SETTINGS)
    for cache in CACHES:
        cache.cache_clear()
    answer = await execute(schema, "{ __typename }" + " " * LONGEST_KEPT)
    assert answer.data == {"__typename": "Query"}
    assert kept() == (0, 0)


async def test_what_is_refused_is_refused_the_second_time_too() -> None:
    schema = make_schema(SETTINGS)
    for document in ("{", "{ nothing }"):
        first, second = [await execute(schema, document) for _ in range(2)]
        assert first.errors
        assert second.errors
        assert first.errors[0].message == second.errors[0].message
