"""What a GraphQL document may ask for at most: its depth and its aliases."""

from __future__ import annotations

from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValidationContext,
    ValidationRule,
)

from services.shared.errors import TooComplex
from services.shared.settings import Settings


def limits_rule(settings: Settings) -> type[ValidationRule]:
    """A validation rule that refuses documents beyond the settings' limits."""

    class Limits(ValidationRule):
        def enter_document(self, node: DocumentNode, *_: Any) -> None:
            measure = _Measure(node)
            if measure.depth > settings.max_query_depth:
                self._refuse(f"is {measure.depth} levels deep", settings.max_query_depth)
            if measure.aliases > settings.max_query_aliases:
                self._refuse(f"has {measure.aliases} aliases", settings.max_query_aliases)

        def _refuse(self, found: str, limit: int) -> None:
            context: ValidationContext = self.context
            context.report_error(
                GraphQLError(
                    f"The document {found}; {limit} is the most. Ask for less at once.",
                    extensions={"code": TooComplex.code},
                )
            )

    return Limits


class _Measure:
    """`depth`: levels of fields of the deepest operation; `aliases`: of all operations, spread."""

    def __init__(self, document: DocumentNode) -> None:
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._known: dict[str, tuple[int, int]] = {}
        measures = [
            self._of(definition.selection_set)
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
        ]
        self.depth = max((depth for depth, _ in measures), default=0)
        self.aliases = max((aliases for _, aliases in measures), default=0)

    def _of(self, selections: SelectionSetNode | None) -> tuple[int, int]:
        deepest, aliases = 0, 0
        for selection in selections.selections if selections else ():
            if isinstance(selection, FragmentSpreadNode):
                depth, within = self._of_fragment(selection.name.value)
            elif isinstance(selection, FieldNode):
                if selection.name.value.startswith("__"):
                    continue  # introspection is deep by nature, and bounded
                depth, within = self._of(selection.selection_set)
                depth, within = depth + 1, within + (selection.alias is not None)
            elif isinstance(selection, InlineFragmentNode):
                depth, within = self._of(selection.selection_set)
            else:
                continue
            deepest, aliases = max(deepest, depth), aliases + within
        return deepest, aliases

    def _of_fragment(self, name: str) -> tuple[int, int]:
        if name not in self._known:
            self._known[name] = (0, 0)  # a cycle; another rule refuses it
            if name in self._fragments:
                self._known[name] = self._of(self._fragments[name].selection_set)
        return self._known[name]
