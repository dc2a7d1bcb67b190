"""What a GraphQL document may hold at most: fields, levels, aliases and root fields."""

from __future__ import annotations

from collections.abc import Iterator

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
)
from strawberry.extensions import SchemaExtension

from services.shared.errors import TooComplex
from services.shared.settings import Settings


class DocumentLimits(SchemaExtension):
    """Refuses documents beyond the settings' limits before they are validated, which takes long
    for large ones. To be listed before what validates."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        document = context.graphql_document
        if document is not None and (excess := self._excess(document, context.query or "")):
            found, limit = excess
            message = f"The document {found}; {limit} is the most. Ask for less at once."
            error = GraphQLError(message, extensions={"code": TooComplex.code})
            context.pre_execution_errors = [error]
        yield

    def _excess(self, document: DocumentNode, text: str) -> tuple[str, int] | None:
        settings, measure = self._settings, _Measure(document)
        if measure.subscribes and len(text) > settings.max_subscription_length:
            # An open subscription keeps it.
            return f"subscribes with {len(text)} characters", settings.max_subscription_length
        if measure.fields > settings.max_query_fields:
            return f"has {measure.fields} fields", settings.max_query_fields
        if measure.depth > settings.max_query_depth:
            return f"is {measure.depth} levels deep", settings.max_query_depth
        if measure.aliases > settings.max_query_aliases:
            return f"has {measure.aliases} aliases", settings.max_query_aliases
        if measure.root_fields > settings.max_root_fields:
            return f"has {measure.root_fields} root fields", settings.max_root_fields
        return None


class _Measure:
    """`subscribes`: whether one of its operations does. `fields`: as they are written. And of the
    worst of its operations, fragments spread: `depth`, levels of fields; `aliases`; `root_fields`,
    those on the first level."""

    def __init__(self, document: DocumentNode) -> None:
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._known: dict[str, tuple[int, int, int]] = {}
        self.fields = 0
        operations = [
            definition
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
        ]
        self.subscribes = any(one.operation is OperationType.SUBSCRIPTION for one in operations)
        measures = [self._of(one.selection_set) for one in operations] or [(0, 0, 0)]
        self.depth, self.aliases, self.root_fields = map(max, zip(*measures, strict=True))
        for fragment in self._fragments:  # those that no operation spreads are validated, too
            self._of_fragment(fragment)

    def _of(self, selections: SelectionSetNode | None) -> tuple[int, int, int]:
        """Depth, aliases, and fields on the first level."""
        deepest, aliases, fields = 0, 0, 0
        for selection in selections.selections if selections else ():
            if isinstance(selection, FragmentSpreadNode):
                depth, within, beside = self._of_fragment(selection.name.value)
            elif isinstance(selection, FieldNode):
                self.fields += 1
                within, beside = int(selection.alias is not None), 1
                depth, inner, _ = self._of(selection.selection_set)
                within += inner
                # Introspection is deep by nature; how often it is asked for is counted as cost.
                depth = 0 if selection.name.value.startswith("__") else depth + 1
            elif isinstance(selection, InlineFragmentNode):
                depth, within, beside = self._of(selection.selection_set)
            else:
                continue
            deepest, aliases, fields = max(deepest, depth), aliases + within, fields + beside
        return deepest, aliases, fields

    def _of_fragment(self, name: str) -> tuple[int, int, int]:
        if name not in self._known:
            self._known[name] = (0, 0, 0)  # a cycle; another rule refuses it
            if name in self._fragments:
                self._known[name] = self._of(self._fragments[name].selection_set)
        return self._known[name]
