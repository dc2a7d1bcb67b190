"""The rules of the house, checked: who may import whom, and what is exported from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import GraphQLNamedType, GraphQLSchema, build_schema, is_introspection_type
from graphql import validate_schema as problems_of

from services.__main__ import EXPORTS
from services.notifications.handlers import NotificationHandlers
from services.shared.events import CATALOGUE, NOTIFICATIONS, QUEUES, USERS
from services.users import handlers as user_handlers
from tests.kit import House

ROOT = Path(__file__).parent.parent
SERVICES = ("users", "notifications", "scheduler")
# Who may import the composition root, and what stands above it.
ABOVE = {
    "services/__main__.py",
    "services/accounts.py",
    "services/demo/__init__.py",
    "gateway/app.py",
}


def modules() -> Iterator[tuple[str, str]]:
    """(file, imported module), with each name that is imported from a package as a module."""
    for path in [*ROOT.glob("services/**/*.py"), *ROOT.glob("gateway/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            name = str(path.relative_to(ROOT))
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: import absolutely"
                yield name, str(node.module)
                yield from ((name, f"{node.module}.{alias.name}") for alias in node.names)


IMPORTS = sorted(set(modules()))


def room_of(module: str) -> str:
    """`services.users.models` is in the room `users`."""
    return module.split(".")[1] if module.startswith("services.") else module.split(".")[0]


def test_shared_imports_no_sibling() -> None:
    assert not [
        (path, module)
        for path, module in IMPORTS
        if path.startswith("services/shared/")
        and module.startswith(("services.", "gateway"))
        and room_of(module) != "shared"
    ]


def test_a_service_asks_a_sibling_through_its_models_only() -> None:
    # What a model answers with belongs to the question: users' preferences are such an answer.
    answers = ("models", "recipients", "preferences", "consent", "quiet_hours", "traits")
    allowed = {f"services.users.{name}" for name in answers}
    allowed |= {f"services.{service}.models" for service in SERVICES}
    offences = [
        (path, module)
        for path, module in IMPORTS
        for service in SERVICES
        if path.startswith(f"services/{service}/")
        and module.startswith("services.")
        and room_of(module) not in ("shared", service)
        and not any(module == name or module.startswith(f"{name}.") for name in allowed)
        and not any(name.startswith(f"{module}.") for name in allowed)
    ]
    assert not offences


def test_only_what_stands_above_the_host_imports_it() -> None:
    assert not [
        (path, module)
        for path, module in IMPORTS
        if (module.startswith(("services.host", "services.demo")) or module == "services")
        and path not in ABOVE
    ]


def test_nothing_imports_the_gateway() -> None:
    assert not [
        (path, module)
        for path, module in IMPORTS
        if module.split(".")[0] == "gateway" and not path.startswith("gateway/")
    ]


def test_strawberry_stays_in_the_gateway() -> None:
    assert not [
        (path, module)
        for path, module in IMPORTS
        if module.split(".")[0] in ("strawberry", "graphql") and not path.startswith("gateway/")
    ]


@pytest.mark.parametrize("pure", ["cron", "mock"])
def test_the_pure_rooms_of_the_scheduler_do_no_io(pure: str) -> None:
    assert not _impure(f"services/scheduler/{pure}.py")


@pytest.mark.parametrize("pure", ["consent", "preferences", "quiet_hours", "tags", "traits"])
def test_the_pure_rooms_of_users_do_no_io(pure: str) -> None:
    assert not _impure(f"services/users/{pure}.py")


def test_reading_wall_time_does_no_io() -> None:
    assert not _impure("services/shared/wall_time.py")


@pytest.mark.parametrize(
    "pure",
    [
        "caps",
        "audience",
        "cursor",
        "engine",
        "filters",
        "locales",
        "personalize",
        "recommend",
        "samples",
        "scope",
        "templates",
    ],
)
def test_the_pure_rooms_of_notifications_do_no_io(pure: str) -> None:
    assert not _impure(f"services/notifications/{pure}.py")


def _impure(path: str) -> list[str]:
    tree = ast.parse((ROOT / path).read_text())
    clocks = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in ("now", "utcnow", "today", "random")
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    ]
    awaits = [type(node).__name__ for node in ast.walk(tree) if isinstance(node, ast.Await)]
    foreign = [
        module
        for name, module in IMPORTS
        if name == path
        and module.split(".")[0] in ("pymongo", "beanie", "aio_pika", "asyncio", "random", "time")
    ]
    return clocks + awaits + foreign


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_file_is_what_the_code_says(name: str) -> None:
    path, export = EXPORTS[name]
    assert (ROOT / path).read_text() == export(), f"run: python -m services {name}"


async def test_each_queue_has_a_handler_for_each_of_its_types(house: House) -> None:
    runtime = house.runtime
    notifications = NotificationHandlers(
        runtime.announcing,
        runtime.scheduling,
        runtime.texts,
        runtime.clock,
        runtime.settings,
    )
    tables = {
        USERS: user_handlers.handlers(runtime.users),
        NOTIFICATIONS: notifications.table(),
    }
    assert {queue: {data.type for data in types} for queue, types in QUEUES.items()} == {
        queue: set(table) for queue, table in tables.items()
    }


def test_each_event_has_a_sentence_that_says_what_it_is() -> None:
    assert all(data.__doc__ and data.__doc__.endswith(".") for data in CATALOGUE.values())


OURS = build_schema((ROOT / "schema.graphql").read_text())
SETTLED = build_schema((ROOT / "tests/contract.graphql").read_text())


def test_the_schema_is_valid() -> None:
    assert not problems_of(OURS)


def test_the_schema_holds_the_settled_contract() -> None:
    assert _signatures(SETTLED) - _signatures(OURS) == set()


def test_every_type_field_argument_and_input_is_described() -> None:
    assert sorted(_undescribed(OURS)) == []


def _own_types(schema: GraphQLSchema) -> Iterator[GraphQLNamedType]:
    standard = ("String", "Int", "Float", "Boolean", "ID")
    for named in schema.type_map.values():
        if not is_introspection_type(named) and named.name not in standard:
            yield named


def _signatures(schema: GraphQLSchema) -> set[str]:
    found = set()
    for named in _own_types(schema):
        found |= {f"{named.name}.{value}" for value in getattr(named, "values", {})}
        for field_name, field in getattr(named, "fields", {}).items():
            default = getattr(field, "default_value", None)
            found.add(f"{named.name}.{field_name}: {field.type} = {default}")
            for name, argument in getattr(field, "args", {}).items():
                place = f"{named.name}.{field_name}({name})"
                found.add(f"{place}: {argument.type} = {argument.default_value}")
    return found


def _undescribed(schema: GraphQLSchema) -> Iterator[str]:
    for named in _own_types(schema):
        if not named.description:
            yield named.name
        for field_name, field in getattr(named, "fields", {}).items():
            if not field.description:
                yield f"{named.name}.{field_name}"
            for name, argument in getattr(field, "args", {}).items():
                if not argument.description:
                    yield f"{named.name}.{field_name}({name})"
