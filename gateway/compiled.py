"""Selections of plain attributes, compiled: most of what it costs to answer with a page of rows.

graphql-core executes field by field: for each it makes a path, an info and a dictionary of
arguments, calls a resolver, and asks of what came back whether it is awaitable, before and after it
is completed. But nearly all fields of an answer only read an attribute of an object of ours. So the
selection below an object whose fields all do is compiled once, into a Plan, which reads all
attributes at once and knows by their types how to complete them.

A plan answers only where nothing can go wrong. With an error, a null that may not be, something
awaitable, or anything that it does not know, it gives up, and graphql-core executes the selection
as if there had been no plan: errors, their paths and what becomes null are never ours to decide.
Nothing is done twice by that, since attributes that are plainly read do nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from inspect import getattr_static
from operator import attrgetter
from types import MemberDescriptorType, NoneType
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID

from graphql import (
    GraphQLBoolean,
    GraphQLField,
    GraphQLID,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLString,
    OperationDefinitionNode,
    TypeNameMetaFieldDef,
    is_leaf_type,
)
from graphql.execution.collect_fields import FieldDetailsList
from graphql.pyutils import Path
from msgspec import Struct
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.base import has_object_definition
from strawberry.types.field import StrawberryField

Convert = Callable[[Any], Any]
_Plans = dict[Hashable, "Plan | None"]

_READS: Final[object] = object.__getattribute__
_TYPENAME: Final = "__class__"  # what every object has, and nobody needs
_MOST_SHAPES: Final = 200
# Values of other types may be awaitable, or errors.
_PLAIN: Final = frozenset(
    {str, int, float, bool, dict, list, datetime, date, time, Decimal, UUID, bytes}
)
_COMPLETED: Final = frozenset({str, int, float, bool, dict, list})
# Scalars that give these back as they are.
_AS_IT_IS: Final = {(GraphQLString, str), (GraphQLID, str), (GraphQLBoolean, bool)}


class Unsure(Exception):
    """This is for graphql-core to execute."""


class Column(NamedTuple):
    """One field of a selection: its name in the answer, the attribute that it reads, and how to
    complete a value of this type. `convert`: None, for a value that is its own answer; raises
    Unsure for a type that is not plain."""

    name: str
    attribute: str
    convert: Callable[[type], Convert | None]


class Plan:
    """How to answer a selection with an object whose attributes are all that it asks for."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._names = tuple(column.name for column in columns)
        attributes = tuple(column.attribute for column in columns)
        self._attributes = attributes
        # A getter of one attribute would not answer a tuple.
        self._read = attrgetter(*attributes, _TYPENAME)
        self._classes: set[type] = set()
        self._shapes: dict[tuple[type, ...], Sequence[tuple[int, Convert]]] = {}

    def __call__(self, source: object) -> dict[str, Any]:
        """The answer. Raises Unsure, or what reading and completing raises."""
        if type(source) not in self._classes:
            self._admit(type(source))
        values: Sequence[Any] = self._read(source)
        shape = tuple(map(type, values))
        conversions = self._shapes.get(shape)
        if conversions is None:
            conversions = self._learn(shape)
        if conversions:
            completed = list(values)
            for place, convert in conversions:
                completed[place] = value = convert(completed[place])
                if type(value) not in _COMPLETED:
                    raise Unsure
            values = completed
        return dict(zip(self._names, values, strict=False))

    def _admit(self, kind: type) -> None:
        """Know a class whose attributes may be read twice. Raises Unsure."""
        computes = hasattr(kind, "__getattr__") or kind.__getattribute__ is not _READS
        is_ours = has_object_definition(kind) or issubclass(kind, Struct)
        if computes or not is_ours or _is_suspect(kind):
            raise Unsure
        for name in self._attributes:
            attribute = getattr_static(kind, name, None)
            if isinstance(attribute, MemberDescriptorType):  # a slot
                continue
            if name != _TYPENAME and hasattr(type(attribute), "__get__"):
                raise Unsure
        self._classes.add(kind)

    def _learn(self, shape: tuple[type, ...]) -> Sequence[tuple[int, Convert]]:
        """Which values of these types are to be converted, and how. Raises Unsure."""
        found = [
            (place, convert)
            for place, (column, kind) in enumerate(zip(self._columns, shape, strict=False))
            if (convert := column.convert(kind))
        ]
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        self._shapes[shape] = found
        return found


class Compiled:
    """The plans of the operations that came last, `most` of them, with their documents of up to
    `longest` characters."""

    def __init__(self, most: int, longest: int) -> None:
        self._most = most
        self._longest = longest
        # By identity: nodes compare by all that is in them. Each is kept, so that none takes
        # the identity of another.
        self._known: OrderedDict[Hashable, tuple[OperationDefinitionNode, _Plans]] = OrderedDict()

    def of(self, operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> _Plans | None:
        """The plans of an operation, to be looked up and added to; None if none are kept."""
        text = operation.loc.source.body if operation.loc else None
        if text is None or len(text) > self._longest:
            return None
        # What @skip and @include decide makes another selection.
        decided = (
            tuple((name, value) for name, value in variables.items() if isinstance(value, bool))
            if "@" in text
            else ()
        )
        key = (id(operation), decided)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = (operation, {})
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return found[1]


class CompiledExecutor(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's executor, with plans for the objects of which it has some."""

    compiled: ClassVar[Compiled]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        manager = self.middleware_manager
        wrapped = manager is not None and manager.middlewares
        split = self.schema.get_directive("defer") or self.schema.get_directive("stream")
        self._plans = (
            None
            if wrapped or split
            else self.compiled.of(self.operation, self.variable_values.coerced)
        )

    def complete_object_value(
        self,
        return_type: GraphQLObjectType,
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> Any:
        if self._plans is not None:
            plan = self._plan(return_type, field_details_list)
            if plan is not None:
                try:
                    return plan(result)
                except Exception:  # noqa: S110 # it is said by graphql-core, where it belongs
                    pass
        return super().complete_object_value(
            return_type, field_details_list, info, path, result, position_context
        )

    def _plan(self, type_: GraphQLObjectType, fields: FieldDetailsList) -> Plan | None:
        """How to answer these fields' selections with an object; None if there is no plan."""
        assert self._plans is not None
        key = (type_.name, *[id(one.node) for one in fields])
        if key in self._plans:
            return self._plans[key]
        self._plans[key] = None  # until it is there, should it be part of itself
        try:
            plan = Plan(self._columns(type_, fields))
        except Unsure:
            plan = None
        self._plans[key] = plan
        return plan

    def _columns(self, type_: GraphQLObjectType, fields: FieldDetailsList) -> list[Column]:
        """Raises Unsure."""
        collected = self.collect_subfields(type_, fields)
        if type_.is_type_of is not None or collected.new_defer_usages:
            raise Unsure
        columns = []
        for name, below in collected.grouped_field_set.items():
            node = below[0].node
            field = self.schema.get_field(type_, node.name.value)
            if field is TypeNameMetaFieldDef:
                columns.append(Column(name, _TYPENAME, _constant(type_.name)))
            elif field is None or field.args or node.arguments:
                raise Unsure
            else:
                columns.append(Column(name, _attribute(field), self._completion(field.type, below)))
        return columns

    def _completion(
        self, type_: GraphQLOutputType, fields: FieldDetailsList
    ) -> Callable[[type], Convert | None]:
        """How values of this type are completed, by their Python type. Raises Unsure."""
        inner = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
        by_kind = self._completion_of_some(inner, fields)

        def completion(kind: type) -> Convert | None:
            if kind is not NoneType:
                return by_kind(kind)
            if inner is not type_:
                raise Unsure
            return None

        return completion

    def _completion_of_some(
        self, type_: GraphQLOutputType, fields: FieldDetailsList
    ) -> Callable[[type], Convert | None]:
        """The same for what is there."""
        if isinstance(type_, GraphQLList):
            return _of_list(self._completion(type_.of_type, fields))
        if isinstance(type_, GraphQLObjectType):
            plan = self._plan(type_, fields)
            if plan is None:
                raise Unsure
            return lambda kind: plan
        if is_leaf_type(type_):
            return _of_leaf(type_)
        raise Unsure


def _attribute(field: GraphQLField) -> str:
    """The attribute that Strawberry reads for a field. Raises Unsure if it does more than that."""
    definition = field.extensions.get("strawberry-definition")
    if (
        isinstance(definition, StrawberryField)
        and getattr(field.resolve, "_is_default", False)
        and definition.is_basic_field
        and definition.default_resolver is getattr
        and type(definition).get_result is StrawberryField.get_result
    ):
        return definition.python_name
    raise Unsure


def _is_suspect(kind: type) -> bool:
    """Whether what is of this type may be awaitable, or an error."""
    return hasattr(kind, "__await__") or issubclass(kind, BaseException)


def _constant(value: str) -> Callable[[type], Convert]:
    return lambda kind: lambda _: value


def _of_list(item: Callable[[type], Convert | None]) -> Callable[[type], Convert]:
    def convert(values: Any) -> list[Any]:
        conversions = {kind: item(kind) or _same for kind in set(map(type, values))}
        completed = [conversions[type(value)](value) for value in values]
        there = completed
        if NoneType in conversions:  # and may be
            there = [one for one, value in zip(completed, values, strict=True) if value is not None]
        if not _COMPLETED.issuperset(map(type, there)):
            raise Unsure
        return completed

    def completion(kind: type) -> Convert:
        if kind is not list and kind is not tuple:
            raise Unsure
        return convert

    return completion


def _same(value: Any) -> Any:
    return value


def _of_leaf(type_: Any) -> Callable[[type], Convert | None]:
    complete: Convert = type_.coerce_output_value

    def completion(kind: type) -> Convert | None:
        if (type_, kind) in _AS_IT_IS:
            return None
        if issubclass(kind, Enum) and not _is_suspect(kind):
            return {member: complete(member) for member in kind}.__getitem__
        if kind in _PLAIN:
            return complete
        raise Unsure

    return completion
