"""Liquid, bounded: what an admin writes can be wrong, but neither endless nor large. Pure.

Of Liquid's tags and filters there are only those that texts need; none reads a file or another
template. A loop runs over a list of the text's own, so ranges are refused: `(1..1000000000)
reversed` would be a list before Liquid counts it. Autoescape is off: texts are plain text, and
whoever shows them as HTML escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TextIO

from liquid import BoundTemplate, Environment, RenderContext
from liquid.ast import Node
from liquid.builtin import content, illegal, output
from liquid.builtin.expressions import FilteredExpression, Path
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.builtin.tags import assign_tag, capture_tag, case_tag, comment_tag, for_tag, if_tag
from liquid.builtin.tags.unless_tag import UnlessTag
from liquid.exceptions import (
    LiquidError,
    LiquidInterrupt,
    LocalNamespaceLimitError,
    LoopIterationLimitError,
    OutputStreamLimitError,
)
from liquid.expression import Expression
from liquid.static_analysis import Segments
from liquid.stream import TokenStream

from services.notifications.filters import FILTERS, plain
from services.notifications.locales import NotWritable, Reader
from services.notifications.scope import Known, Scope, TooManySteps


class _Written(output.OutputNode):
    """`{{ … }}`, which writes text and numbers, and no object as Python shows it."""

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        return buffer.write(plain(self.expression.evaluate(context)))


class _Output(output.Output):
    node_class = _Written


class _When(case_tag.MultiExpressionBlockNode):
    """Rendered once, however many of its values match: Liquid would render it once for each."""

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        matches = any(self.expression.evaluate(context))
        return self.block.render(context, buffer) if matches else -1


class _Case(case_tag.CaseTag):
    def parse(self, stream: TokenStream) -> Node:
        node = super().parse(stream)
        assert isinstance(node, case_tag.CaseNode)
        node.blocks = [
            _When(block.token, block.block, block.expression)
            if isinstance(block, case_tag.MultiExpressionBlockNode)
            else block
            for block in node.blocks
        ]
        return node


_TAGS: Final = (
    content.Literal,
    _Output,
    illegal.Illegal,
    assign_tag.AssignTag,
    capture_tag.CaptureTag,
    _Case,
    comment_tag.CommentTag,
    for_tag.ForTag,
    for_tag.BreakTag,
    for_tag.ContinueTag,
    if_tag.IfTag,
    UnlessTag,
)
_SETTINGS: Final = {
    LoopIterationLimitError: "TEXT_LOOP_ITERATIONS",
    OutputStreamLimitError: "TEXT_OUTPUT_BYTES",
    LocalNamespaceLimitError: "TEXT_OUTPUT_BYTES",
    TooManySteps: "TEXT_STEPS",
}
Part = str | tuple[str, ...]  # of a plain template: a text, or the name of one

_MOST_BYTES: Final = 4  # of a character in UTF-8
_KEPT: Final = 128  # of up to 1 MB each, when 8 KB are all variables; a usual one has 5 KB
_OPENING: Final = re.compile(r"\{\{|\{%")
_CLOSING: Final = {"{{": "}}", "{%": "%}"}
_GAP: Final = re.compile(r"\s{100}")


@dataclass(frozen=True, slots=True)
class Limits:
    """`output_bytes` bounds what is kept in variables, too; `loops` the runs of a loop's body,
    those of the loops around it included; `steps` the variables and filters of one rendering."""

    source_bytes: int
    output_bytes: int
    loops: int
    steps: int


class TemplateFailed(Exception):
    """A template that is wrong, or was given what it can't write. `line` counts from 1."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(
            f"Line {line}: {reason}." if line else f"{reason[:1].upper()}{reason[1:]}."
        )


class Engine:
    """Makes templates that keep within the limits; the latest ones are kept."""

    def __init__(self, limits: Limits) -> None:
        class Bounded(Environment):
            loop_iteration_limit = limits.loops
            output_stream_limit = limits.output_bytes
            local_namespace_limit = limits.output_bytes

            def setup_tags_and_filters(self, *, extra: bool = False) -> None:
                for tag in _TAGS:
                    self.add_tag(tag)
                self.filters.update(FILTERS)

        self._limits = limits
        self._environment = Bounded()
        self._kept = lru_cache(_KEPT)(self._read)

    def template(self, source: str) -> Template:
        """Raises TemplateFailed for what can't be read as Liquid, or is too long."""
        return self._kept(source)

    def _read(self, source: str) -> Template:
        size = len(source.encode())
        if size > self._limits.source_bytes:
            most = self._limits.source_bytes
            raise TemplateFailed(f"it has {size} bytes; {most} is the most (TEXT_SOURCE_BYTES)")
        _check_delimiters(source)
        try:
            return Template(self._environment.from_string(source), source, self._limits.steps)
        except LiquidError as error:
            raise _failure(error, _line(source, len(source))) from error


class Template:
    """Text with gaps. Built by Engine."""

    def __init__(self, template: BoundTemplate, source: str, steps: int) -> None:
        self._template = template
        self._source = source
        self._steps = steps
        self._parts = _plain_parts(template.nodes)

    def check(self, sample: Mapping[str, Any]) -> None:
        """Raise TemplateFailed for a filter that does not exist, a range, or a variable that is not
        in the sample, also where rendering would not come to it."""
        found = self._template.analyze(include_partials=False)
        for name, spans in found.filters.items():
            if name not in FILTERS:
                known = ", ".join(FILTERS)
                line = _line(self._source, spans[0].index)
                raise TemplateFailed(f"there is no filter {name!r}; known are {known}", line)
        for variables in found.globals.values():
            for variable in variables:
                if mistake := _mistake(variable.segments, sample):
                    raise TemplateFailed(mistake, _line(self._source, variable.span.index))
        for expression in self._expressions(self._template.nodes):
            if isinstance(expression, RangeLiteral):
                line = _line(self._source, expression.token.start_index)
                raise TemplateFailed("a loop runs over a list, not over a range of numbers", line)

    def render(self, variables: Mapping[str, Any], reader: Reader) -> str:
        """Raises TemplateFailed, whatever is wrong: the data is the shop's."""
        if self._parts is not None and (text := self._joined(self._parts, variables)) is not None:
            return text
        scope = Scope(self._template, variables, reader, self._steps)
        written = scope.get_buffer()
        for node in self._template.nodes:
            try:
                node.render(scope, written)
            except Exception as error:
                raise _failure(error, _line(self._source, node.token.start_index)) from error
        return written.getvalue()

    def _joined(self, parts: Sequence[Part], variables: Mapping[str, Any]) -> str | None:
        """What Liquid would write, in a tenth of its time; None for what it may refuse."""
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value: Any = variables
            for name in part:
                if not isinstance(value, dict) or name not in value:
                    return None
                value = value[name]
            if not isinstance(value, str):
                return None
            texts.append(value)
        text = "".join(texts)
        limit = self._template.env.output_stream_limit
        is_small = limit is None or len(text) * _MOST_BYTES <= limit
        return text if is_small and len(parts) <= self._steps else None

    def _expressions(self, nodes: Sequence[Node]) -> Iterator[Expression]:
        for node in nodes:
            for expression in node.expressions():
                yield from _all_of(expression)
            inner = node.children(RenderContext(self._template), include_partials=False)
            yield from self._expressions(list(inner))


def _plain_parts(nodes: Sequence[Node]) -> Sequence[Part] | None:
    """Texts and names, where a template has nothing else; else None."""
    parts: list[Part] = []
    for node in nodes:
        if isinstance(node, content.ContentNode):
            parts.append(node.text)
        elif isinstance(node, _Written) and (name := _plain_name(node.expression)):
            parts.append(name)
        else:
            return None
    return parts


def _plain_name(expression: Expression) -> tuple[str, ...] | None:
    """Of `order.id` and the like, without filters."""
    if not isinstance(expression, FilteredExpression) or expression.filters:
        return None
    path = expression.left.path if isinstance(expression.left, Path) else []
    names = tuple(name for name in path if isinstance(name, str))
    return names if len(names) == len(path) else None


def _check_delimiters(source: str) -> None:
    """Raise TemplateFailed for what Liquid's lexer takes seconds for: many `{{`, or many blanks."""
    place = 0
    while opening := _OPENING.search(source, place):
        start, closing = opening.end(), _CLOSING[opening[0]]
        end = source.find(closing, start)
        if end < 0:
            reason = f"{opening[0]} is not closed by {closing}"
            raise TemplateFailed(reason, _line(source, opening.start()))
        if _GAP.search(source, start, end):
            reason = f"too many blanks between {opening[0]} and {closing}"
            raise TemplateFailed(reason, _line(source, opening.start()))
        place = end + len(closing)


def _line(source: str, index: int) -> int:
    return source.count("\n", 0, index) + 1


def _all_of(expression: Expression) -> Iterator[Expression]:
    yield expression
    for inner in expression.children():
        yield from _all_of(inner)


def _mistake(path: Segments, sample: Mapping[str, Any]) -> str | None:
    """What is wrong with a variable's path."""
    value: Any = Known(sample)
    place = ""
    for segment in path:
        if isinstance(value, Known):
            if not isinstance(segment, str) or segment not in value:
                written = segment if isinstance(segment, str) else "[…]"
                known = ", ".join(f"{place}{name}" for name in value)
                return f"there is no {place}{written}; known are {known}"
            value = value[segment]
        elif isinstance(value, list):
            if isinstance(segment, str) and segment not in ("first", "last", "size"):
                return f"{place[:-1]} is a list: loop over it, or name {place}first"
            value = None if segment == "size" else value[0]
        elif isinstance(value, dict):  # the shop's own, and all that is in it
            return None
        else:
            return f"{place[:-1]} is a single value: nothing is in it"
        place += f"{segment}."
    return None


def _failure(error: Exception, line: int | None) -> TemplateFailed:
    cause = error.__cause__ or error
    if isinstance(cause, RecursionError):
        return TemplateFailed("it is nested too deeply")
    if isinstance(error, LiquidInterrupt):
        return TemplateFailed(f"{error} stands outside of a loop", line)
    if isinstance(error, NotWritable):
        return TemplateFailed(str(error), line)
    if isinstance(error, LiquidError):
        token = error.token
        if token is not None and token.start_index >= 0:
            line = _line(token.source, token.start_index)
        if isinstance(error.__cause__, TypeError):
            name = str(error.message).partition(":")[0]
            return TemplateFailed(f"{name} takes other values, or another number of them", line)
        setting = next((name for kind, name in _SETTINGS.items() if isinstance(error, kind)), None)
        return TemplateFailed(
            f"{error.message} ({setting})" if setting else f"{error.message}", line
        )
    return TemplateFailed(f"it can't be rendered ({type(error).__name__})", line)
