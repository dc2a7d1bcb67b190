"""What an operation costs, counted before it is executed: docs/security.md says how.

Each object that it may return costs one, as does each `content`, and each field of Query and
Mutation what WEIGHTS names at least. What is in a list is counted as often as the list may be long:
`first` or `last`, or PAGE_SIZE without them, for connections; LISTED for lists that have neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import EllipsisType, NoneType
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    get_operation_ast,
    is_list_type,
)
from strawberry.extensions import SchemaExtension

from services.shared.errors import TooComplex
from services.shared.settings import Settings

LISTED: Final = 10
WEIGHTS: Final[Mapping[str, int]] = {
    "register": 50,
    "login": 50,
    "changePassword": 100,
    "resetPassword": 50,
    "requestPasswordReset": 50,
    "recommendations": 50,
    "audience": 50,
    "createRecommendations": 50,
    "markAllNotificationsRead": 50,
    "markAllNotificationsSeen": 50,
    "textTemplates": 50,
    "previewTextTemplate": 50,
    "saveTextTemplate": 50,
    "operations": 50,
    "deadLetters": 50,
    "replayDeadLetter": 50,
    "discardDeadLetter": 50,
}
_MUTATION: Final = 10
_INTROSPECTION: Final[Mapping[str, int]] = {"__schema": 100, "__type": 10}
_LARGE: Final = "content"  # may be 64 KiB, and may be asked for under many names
_SLICES: Final = ("first", "last")
_LENGTHS: Final = (int, NoneType, EllipsisType)
_KNOWN_COSTS: Final = 100
_EDGES: Final = "edges"  # as many as its connection was asked for


class CostLimit(SchemaExtension):
    """Refuses what costs more than MAX_QUERY_COST; tells the cost to who asks for it with the
    request extension `{"cost": true}`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._cost: int | None = None

    def on_execute(self) -> Iterator[None]:
        context = self.execution_context
        document, variables = context.graphql_document, context.variables or {}
        assert document is not None
        cost = OperationCost(
            context.schema._schema, document, context.operation_name, self._settings
        )
        self._cost = cost.of(variables)
        # An open subscription keeps them: no more than its document speaks of.
        context.variables = cost.declared(variables)
        check_cost(self._cost, self._settings)
        yield

    def get_results(self) -> dict[str, Any]:
        asked = self.execution_context.context.tells_cost
        return {"cost": self._cost} if asked and self._cost is not None else {}


def check_cost(cost: int, settings: Settings) -> None:
    """Raises GraphQLError for what costs too much."""
    limit = settings.max_query_cost
    if cost > limit:
        raise GraphQLError(
            f"The operation costs {cost}; {limit} is the most (MAX_QUERY_COST). "
            "Ask for shorter lists, or for less at once.",
            extensions={"code": TooComplex.code, "cost": cost},
        )


class OperationCost:
    """What one operation of a document costs, by the variables that its lists' lengths are. What
    was counted is remembered for a few values of these."""

    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, name: str | None, settings: Settings
    ) -> None:
        self._count = partial(_Count, schema, document, settings)
        self._operation = get_operation_ast(document, name)
        declared = (self._operation.variable_definitions if self._operation else None) or ()
        self._names = [variable.variable.name.value for variable in declared]
        self._lengths: Sequence[str] | None = None
        self._known: dict[tuple[Any, ...], int] = {}

    def of(self, variables: Mapping[str, Any]) -> int:
        values = tuple([variables.get(name, ...) for name in self._lengths or ()])
        plain = all(type(value) in _LENGTHS for value in values)
        if self._lengths is not None and plain and values in self._known:
            return self._known[values]
        count = self._count(variables)
        cost = count.of_operation(self._operation)
        if self._lengths is None:
            self._lengths = sorted(count.lengths)
        elif plain and len(self._known) < _KNOWN_COSTS:
            self._known[values] = cost
        return cost

    def declared(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Those variables that the operation declares."""
        return {name: variables[name] for name in self._names if name in variables}


class _Count:
    """`lengths`: the variables that were looked at, which are the same whatever their values."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        settings: Settings,
        variables: Mapping[str, Any],
    ) -> None:
        self._schema = schema
        self._variables = variables
        self._settings = settings
        self._known: dict[tuple[str, int], int] = {}
        self._defaults: Mapping[str, ValueNode | None] = {}
        self.lengths: set[str] = set()
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }

    def of_operation(self, operation: OperationDefinitionNode | None) -> int:
        root = self._schema.get_root_type(operation.operation) if operation else None
        if operation is None or root is None:
            return 0
        self._defaults = {
            variable.variable.name.value: variable.default_value
            for variable in operation.variable_definitions or ()
        }
        return self._of(root, operation.selection_set)

    def _of(
        self, parent: GraphQLObjectType, selections: SelectionSetNode | None, edges: int = 1
    ) -> int:
        """`edges`: as many as the connection was asked for that these are fields of."""
        cost = 0
        for selection in selections.selections if selections else ():
            if isinstance(selection, FieldNode):
                cost += self._of_field(parent, selection, edges)
            elif isinstance(selection, InlineFragmentNode):
                cost += self._of(parent, selection.selection_set, edges)
            elif isinstance(selection, FragmentSpreadNode):
                cost += self._of_fragment(parent, selection.name.value, edges)
        return cost

    def _of_fragment(self, parent: GraphQLObjectType, name: str, edges: int) -> int:
        """Counted once and added each time: fragments that spread fragments are soon too many."""
        if (name, edges) not in self._known:
            self._known[name, edges] = 0
            self._known[name, edges] = self._of(parent, self._fragments[name].selection_set, edges)
        return self._known[name, edges]

    def _of_field(self, parent: GraphQLObjectType, field: FieldNode, edges: int) -> int:
        """What its objects cost, and all below them; nothing for a plain value that is small."""
        name = field.name.value
        cost = 1 if name == _LARGE else 0
        definition = parent.fields.get(name)
        if definition is None:
            return _INTROSPECTION.get(name, 0)
        kind = get_named_type(definition.type)
        if isinstance(kind, GraphQLObjectType):
            length = self._length(definition, field)
            if _EDGES in kind.fields:  # a connection: one object, and its list is below
                cost = 1 + self._of(kind, field.selection_set, length)
            else:
                length = edges if name == _EDGES else length
                cost = length * (1 + self._of(kind, field.selection_set))
        if parent is self._schema.mutation_type:
            return max(cost, WEIGHTS.get(name, _MUTATION))
        if parent is self._schema.query_type:
            return max(cost, WEIGHTS.get(name, 1))
        return cost

    def _length(self, definition: GraphQLField, field: FieldNode) -> int:
        """How many objects it may return at most."""
        slices = {name: definition.args[name] for name in _SLICES if name in definition.args}
        if not slices:
            return LISTED if is_list_type(get_nullable_type(definition.type)) else 1
        asked = [
            self._value(argument.value)
            for argument in field.arguments or ()
            if argument.name.value in slices
        ]
        defaults = [slice.default_value for slice in slices.values()]
        wanted = next((n for n in (*asked, *defaults) if isinstance(n, int | float)), None)
        if wanted is None:
            return self._settings.page_size
        return int(min(max(wanted, 0), self._settings.max_page_size))  # more is refused

    def _value(self, node: ValueNode) -> Any:
        """The number that is meant: written, given as a variable, or the variable's default."""
        if isinstance(node, VariableNode):
            name = node.name.value
            self.lengths.add(name)
            if name in self._variables:
                return self._variables[name]
            default = self._defaults.get(name)
            return self._value(default) if default is not None else None
        return int(node.value) if isinstance(node, IntValueNode) else None
