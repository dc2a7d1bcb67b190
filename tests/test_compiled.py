"""Compiled selections against graphql-core's own executor: the same document, the same values, and
whatever may be wrong with them. Data, its order, errors and calls have to be the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import strawberry
from graphql import ExecutionResult, Undefined, parse, validate
from graphql.execution import execute
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import fields
from strawberry import ID
from strawberry.execution import optimized_is_awaitable
from strawberry.scalars import JSON
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types import get_object_definition

from gateway.compiled import Compiled, CompiledExecutor
from gateway.notification_types import (
    Notification,
    NotificationConnection,
    NotificationEdge,
    PageInfo,
)
from services.notifications.shown import Shown
from services.shared.vocabulary import NotificationType

# What graphql-core cancels before it has begun was never awaited.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@strawberry.enum
class Colour(Enum):
    RED = "red"
    BLUE = 2


@dataclass
class World:
    """The context of one execution: what the roots answer, and what was called."""

    make: Callable[[], Any]
    calls: list[str] = field(default_factory=list)


Info = strawberry.Info[World, None]


@strawberry.type
class Thing:
    text: str
    maybe_text: str | None
    number: int
    ratio: float
    flag: bool
    key: ID
    moment: datetime
    maybe_moment: datetime | None
    colour: Colour
    maybe_colour: Colour | None
    anything: JSON
    words: list[str]
    maybe_words: list[str | None] | None
    grid: list[list[int]]
    child: Thing
    maybe_child: Thing | None
    children: list[Thing]
    maybe_children: list[Thing | None] | None

    @strawberry.field
    def computed(self, info: Info, times: int = 1) -> str:
        info.context.calls.append(f"computed {times}")
        if times > 2:
            raise ValueError("too many times")
        return "x" * times

    @strawberry.field
    async def later(self, info: Info) -> int | None:
        info.context.calls.append("later")
        await asyncio.sleep(0)
        info.context.calls.append("later on")
        return 7


@strawberry.type
class Query:
    @strawberry.field
    def thing(self, info: Info) -> Thing:
        return info.context.make()  # type: ignore[no-any-return]

    @strawberry.field
    async def maybe_thing(self, info: Info, wanted: bool = True) -> Thing | None:
        info.context.calls.append(f"maybe {wanted}")
        await asyncio.sleep(0)
        info.context.calls.append("made")
        return info.context.make() if wanted else None

    @strawberry.field
    def things(self, info: Info) -> list[Thing | None]:
        return [info.context.make(), None, info.context.make()]

    @strawberry.field
    def page(self, info: Info) -> NotificationConnection | None:
        return info.context.make()  # type: ignore[no-any-return]


@strawberry.type
class Mutation(Query):
    pass


SCHEMA = strawberry.Schema(Query, Mutation)


class Executor(CompiledExecutor):
    compiled = Compiled(most=50, longest=5000)
    fields: ClassVar[Counter[str]] = Counter()

    def execute_field(self, parent_type: Any, *args: Any) -> Any:
        self.fields[parent_type.name] += 1
        return super().execute_field(parent_type, *args)


async def answer(
    executor: type[StrawberryGraphQLCoreExecutionContext],
    document: Any,
    make: Callable[[], Any],
    variables: dict[str, Any],
) -> tuple[Any, ...]:
    world = World(make)
    result = execute(
        SCHEMA._schema,
        document,
        context_value=world,
        variable_values=variables,
        executor_class=executor,
        is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
        operation_extensions=None,
    )
    found = result if isinstance(result, ExecutionResult) else await result
    errors = [
        (str(one), one.path, one.locations, repr(one.original_error)) for one in found.errors or ()
    ]
    # After an error graphql-core lets what is beside it go on behind our backs, or cancels it: how
    # much of that was called by then differs from one time to the next.
    return in_order(found.data), errors, None if errors else world.calls


def in_order(value: Any) -> Any:
    """With what `==` does not look at: the order of keys, and types; of what JSON has no word for,
    just the type."""
    if isinstance(value, dict):
        return [(name, in_order(inner)) for name, inner in value.items()]
    if isinstance(value, list):
        return [list, *map(in_order, value)]
    is_json = value is None or isinstance(value, str | int | float)
    return type(value), repr(value) if is_json else None


async def same(text: str, make: Callable[[], Any], variables: dict[str, Any] | None = None) -> Any:
    """The answer of graphql-core, if it is ours, too: new, and when it is known."""
    document = parse(text)
    assert not validate(SCHEMA._schema, document)
    plain = await answer(StrawberryGraphQLCoreExecutionContext, document, make, variables or {})
    for _ in range(2):
        assert await answer(Executor, document, make, variables or {}) == plain
    return plain


class Broken(Exception):
    def __eq__(self, other: object) -> bool:
        return type(other) is Broken

    __hash__ = Exception.__hash__


class Soon:
    """Awaitable, and of no harm when nobody awaits it, as a coroutine would be."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        if isinstance(self._value, Broken):
            raise self._value
        return self._value


# Each makes its value anew: a coroutine is awaited only once.
Make = Callable[[], Any]
leaves: st.SearchStrategy[Make] = st.one_of(
    st.sampled_from(
        [
            None,
            Undefined,
            "",
            "text",
            0,
            2**31,
            -1,
            1.5,
            float("nan"),
            True,
            False,
            datetime(2026, 1, 2, tzinfo=UTC),
            datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
            Colour.RED,
            Colour.BLUE,
            NotificationType.PROMOTION,
            "red",
            b"bytes",
            ID("id"),
            {"a": [1, None]},
            [],
            ["a", "b"],
            ["a", None],
            ("a", 1),
            [[1, 2], []],
            [[1], None],
            {1, 2},
            object,
        ]
    ).map(lambda value: lambda: value),
    st.just(lambda: Broken("a value")),
    st.just(lambda: Soon("later")),
    st.just(lambda: Soon(None)),
    st.just(lambda: Soon(Broken("later"))),
    st.just(lambda: iter(["a", "b"])),
    st.just(lambda: [Soon("a"), "b"]),
    st.just(lambda: [Broken("an item"), "b"]),
)
RIGHT: dict[str, Make] = {
    "text": lambda: "text",
    "maybe_text": lambda: None,
    "number": lambda: 1,
    "ratio": lambda: 0.5,
    "flag": lambda: True,
    "key": lambda: ID("k"),
    "moment": lambda: datetime(2026, 1, 2, tzinfo=UTC),
    "maybe_moment": lambda: None,
    "colour": lambda: Colour.RED,
    "maybe_colour": lambda: Colour.BLUE,
    "anything": lambda: {"n": [1, None, {"a": "b"}]},
    "words": lambda: ["a", "b"],
    "maybe_words": lambda: ["a", None],
    "grid": lambda: [[1, 2], []],
    "child": lambda: Thing(**bare()),
    "maybe_child": lambda: None,
    "children": list,
    "maybe_children": lambda: [None],
}
NAMES = list(RIGHT)
CHILDREN = [name for name in NAMES if "child" in name]


def bare() -> dict[str, Any]:
    """A thing's values, without another thing within."""
    return {name: make() for name, make in RIGHT.items() if name != "child"} | {"child": None}


def thing(wrong: dict[str, Make]) -> Make:
    return lambda: Thing(**{name: make() for name, make in (RIGHT | wrong).items()})


def no_thing(wrong: dict[str, Make]) -> Make:
    """What has the attributes, and is no type of ours."""
    return lambda: SimpleNamespace(**{name: make() for name, make in (RIGHT | wrong).items()})


@st.composite
def things(draw: st.DrawFn, depth: int = 2) -> Make:
    """A thing of which a few values are wrong, or none."""
    if draw(st.integers(0, 9)) == 0:
        return lambda: None
    wrong: dict[str, Make] = draw(st.dictionaries(st.sampled_from(NAMES), leaves, max_size=2))
    for name in draw(st.lists(st.sampled_from(CHILDREN), unique=True)) if depth else []:
        inner = draw(st.lists(things(depth - 1), max_size=3))
        wrong[name] = partial(children_of, inner, draw(st.sampled_from(["one", "list", "soon"])))
    return (no_thing if draw(st.integers(0, 9)) == 0 else thing)(wrong)


def children_of(makes: Sequence[Make], kind: str) -> Any:
    made = [make() for make in makes]
    if kind == "one":
        return made[0] if made else None
    return made if kind == "list" else Soon(made)


PLAIN = [
    "text",
    "maybeText",
    "number",
    "ratio",
    "flag",
    "key",
    "moment",
    "maybeMoment",
    "colour",
    "maybeColour",
    "anything",
    "words",
    "maybeWords",
    "grid",
    "__typename",
]
MORE = ["computed", "computed(times: 2)", "computed(times: $n)", "computed(times: 5)", "later"]
INNER = ["child", "maybeChild", "children", "maybeChildren"]
CONDITIONS = ["", "", "", "@skip(if: $yes)", "@include(if: $yes)", "@include(if: false)"]


def selections(depth: int, *, computed: bool) -> st.SearchStrategy[str]:
    plain = st.sampled_from([*PLAIN, *(MORE if computed else [])])
    aliased = st.sampled_from(PLAIN).map(lambda name: f"x_{name.strip('_')}: {name}")
    one = st.tuples(plain | aliased, st.sampled_from(CONDITIONS)).map(" ".join)
    spread = st.sampled_from(["... F", "... on Thing { number ... F }"])
    if depth:
        deeper = selections(depth - 1, computed=computed)
        inner = st.tuples(st.sampled_from(INNER), deeper).map(lambda two: f"{two[0]} {two[1]}")
        group = st.tuples(st.sampled_from(CONDITIONS), deeper).map(
            lambda two: f"... {two[0]} {two[1]}"
        )
        one = one | inner | inner | group
    return st.lists(one | spread, min_size=1, max_size=6).map(
        lambda all_: f"{{ {' '.join(all_)} }}"
    )


ROOTS = ["thing", "maybeThing", "maybeThing(wanted: $yes)", "things"]


@st.composite
def documents(draw: st.DrawFn) -> str:
    computed = draw(st.booleans())
    roots = [
        f"r{at}: {draw(st.sampled_from(ROOTS))} {draw(selections(2, computed=computed))}"
        for at in range(draw(st.integers(1, 3)))
    ]
    kind = draw(st.sampled_from(["query", "mutation"]))
    fragment = draw(st.sampled_from(["text", "child { text }", "words __typename", "computed"]))
    text = (
        f"{kind} Q($yes: Boolean! = true, $n: Int = 2) {{ {' '.join(roots)} ... R }} "
        f"fragment R on {kind.capitalize()} {{ last: maybeThing {{ ... F }} "
        f"unused: maybeThing(wanted: $yes) {{ computed(times: $n) }} }} "
        f"fragment F on Thing {{ {fragment} }}"
    )
    assume(not validate(SCHEMA._schema, parse(text)))  # one name for two kinds of a call
    return text


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    documents(),
    things(),
    st.fixed_dictionaries(
        {},
        optional={
            "yes": st.sampled_from([True, False, None, "yes"]),
            "n": st.sampled_from([1, 3, None, 2**40]),
        },
    ),
)
@example("{ thing { text child { text } } }", thing({"text": lambda: None}), {})
async def test_the_answer_is_that_of_graphql_core(
    text: str, make: Make, variables: dict[str, Any]
) -> None:
    await same(text, make, variables)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(NAMES), leaves, st.sampled_from(["thing", "maybeThing", "things"]))
async def test_a_single_wrong_value_makes_the_same_errors(name: str, make: Make, root: str) -> None:
    """Of many: `words` that has no list, `number` that is too large, and so on."""
    head, *tail = name.split("_")
    field = head + "".join(part.capitalize() for part in tail)
    field += " { text __typename }" if "child" in name else ""
    await same(f"{{ a: {root} {{ text {field} }} thing {{ children {{ {field} }} }} }}", thing({}))
    inside = thing({"children": lambda: [thing({name: make})(), thing({})()], name: make})
    await same(f"{{ {root} {{ text {field} maybeChildren {{ {field} }} }} }}", inside)
    await same(f"{{ {root} {{ children {{ text {field} }} }} }}", inside)


PAGE = """{ page { edges { cursor node { id userId type title body content sentAt read readAt seen
    archived snoozedUntil expiresAt revision } } pageInfo { hasNextPage endCursor } __typename }}"""


def notifications(revisions: Sequence[Any], kind: Any = Notification) -> NotificationConnection:
    """`kind`: of the nodes; rows that are read to be shown stand there themselves."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    edges = [
        NotificationEdge(
            cursor="c",
            node=kind(
                id="1",
                user_id="2",
                type=NotificationType.PROMOTION,
                title="T",
                body="B",
                content={"a": 1},
                sent_at=now,
                read=True,
                read_at=now if at % 2 else None,
                seen=True,
                archived=False,
                snoozed_until=None,
                expires_at=None,
                revision=revision,
            ),
        )
        for at, revision in enumerate(revisions)
    ]
    info = PageInfo(
        has_next_page=False, has_previous_page=False, start_cursor=None, end_cursor=None
    )
    return NotificationConnection(edges=edges, page_info=info)


KINDS = [Notification, Shown]


def test_rows_that_are_shown_have_all_that_a_notification_shows() -> None:
    named = {field.python_name for field in get_object_definition(Notification, strict=True).fields}
    assert named == {field.name for field in fields(Shown)}


@given(st.lists(st.sampled_from([1, 2, 3, None, "x", 2**31]), max_size=4), st.sampled_from(KINDS))
@settings(deadline=None)
async def test_our_own_pages_are_the_same(revisions: list[Any], kind: Any) -> None:
    await same(PAGE, lambda: notifications(revisions, kind))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_is_answered_without_executing_its_fields(kind: Any) -> None:
    Executor.fields.clear()
    (data, errors, _) = await same(PAGE, lambda: notifications([1, 2], kind))
    assert data
    assert not errors
    assert Executor.fields == {"Query": 2}  # asked for twice
    await same(PAGE, lambda: notifications([1, None], kind))
    assert Executor.fields["Notification"] == 2 * 14  # of the one that is wrong


async def test_a_selection_with_a_resolver_in_it_is_executed() -> None:
    Executor.fields.clear()
    await same("{ thing { text computed child { text } } }", thing({}))
    assert Executor.fields == {"Query": 2, "Thing": 2 * 3}


class Counting(Thing):
    """Computes its number, each time that it is read."""

    @property
    def number(self) -> int:
        self.ratio += 1
        return int(self.ratio)

    @number.setter
    def number(self, value: int) -> None:
        pass


class CountingRow(Struct):
    """The same, where attributes are slots."""

    maybe_text: object
    reads: int = 0

    @property
    def number(self) -> int:
        self.reads += 1
        return self.reads


class Lazy:
    """No type of ours, though it has the attributes, of which one is computed."""

    maybe_text = object()

    def __init__(self) -> None:
        self._reads = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._reads += 1
        return self._reads


@pytest.mark.parametrize(
    "make",
    [
        lambda: Counting(**bare() | {"maybe_text": object()}),
        lambda: CountingRow(object()),
        Lazy,
    ],
)
async def test_what_is_computed_is_computed_once(make: Make) -> None:
    (data, errors, _) = await same("{ thing { number maybeText } }", make)
    assert len(errors) == 1
    assert data[0][1][0] == ("number", (int, "1"))


async def test_variables_decide_anew_what_is_selected() -> None:
    text = "query ($yes: Boolean!) { thing { text number @include(if: $yes) } }"
    document = parse(text)
    for yes in (True, False, True):
        (data, _, _) = await answer(Executor, document, thing({}), {"yes": yes})
        assert len(data[0][1]) == 1 + yes


def test_no_more_documents_are_kept_than_may_be() -> None:
    compiled = Compiled(most=3, longest=40)

    def operations(texts: Sequence[str]) -> Iterator[Any]:
        for text in texts:
            yield parse(text).definitions[0]

    kept = list(operations([f"{{ thing {{ a{at}: text }} }}" for at in range(10)]))
    for operation in kept:
        assert compiled.of(operation, {}) == {}
    assert len(compiled._known) == 3
    plans = compiled.of(kept[-1], {})
    assert plans is compiled.of(kept[-1], {"n": 1})
    (long,) = operations(["{ thing { " + "text " * 20 + "} }"])
    assert compiled.of(long, {}) is None
