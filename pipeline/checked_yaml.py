"""
Read YAML by a table of fields and tell every problem at once, each with file, line and what is allowed.

A `Field` says how one entry of a mapping is read; a reader function takes the `Findings`, the node and
where it stands, and returns the value, or None after it has noted what is wrong. The caller asks for
`Findings.stop_if_any` before it uses any value.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any, NamedTuple

import yaml

from pipeline.errors import ConfigError

__all__ = [
    "Entry",
    "Field",
    "Findings",
    "boolean",
    "compose",
    "day",
    "did_you_mean",
    "duration_ms",
    "entries",
    "listed",
    "mapping",
    "names_in",
    "one_of",
    "text",
    "whole_number",
]

Node = Any  # a yaml.Node; PyYAML's stubs leave most of it untyped
Read = Callable[["Findings", Node, str], Any]

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"^([1-9][0-9]{0,8})([smhd])$")
_KINDS = {"ScalarNode": "a single value", "SequenceNode": "a list", "MappingNode": "a mapping"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Field(NamedTuple):
    """One entry of a mapping: how it is read, and what stands for it where it is missing."""

    read: Read
    required: bool = True
    default: Any = None


class Entry(NamedTuple):
    """What was read, and the node it was read from: for checks that look at several entries."""

    value: Any
    node: Node
    where: str


class Findings:
    """The problems found so far in one file, in the order of its lines."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[tuple[int, str]] = []

    def note(self, node: Node, where: str, told: str) -> None:
        """Note that *where*, which stands at *node*, is wrong: *told* says how and what is allowed."""
        line = node.start_mark.line + 1
        self._found.append((line, f"{self._file}:{line}: {where}: {told}"))

    def stop_if_any(self) -> None:
        """
        Go on only when nothing was found.

        Raises:
            ConfigError: with every problem, in the order of the lines.
        """
        if self._found:
            raise ConfigError(told for _, told in sorted(self._found, key=lambda found: found[0]))


def compose(source: str, file: str) -> Node:
    """
    The root node of the YAML *source*, which problems call *file*.

    Raises:
        ConfigError: it is no YAML, or empty.
    """
    try:
        root = yaml.compose(source, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}:{line}: is no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}:1: is no YAML: {error}") from error
    if root is None:
        raise ConfigError(f"{file}:1: is empty")
    return root


def did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    """``; did you mean 'retention'?`` where one of *known* is close to *name*, else nothing."""
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def names_in(node: Node) -> set[str]:
    """The names in a mapping, whatever stands under them; none where *node* is no mapping."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return {str(key.value) for key, _ in pairs}


def mapping(fields: Mapping[str, Field]) -> Read:
    """A reader of a mapping with *fields* and no others: returns name -> value, defaults filled in."""

    def read(findings: Findings, node: Node, where: str) -> dict[str, Any]:
        values = {name: field.default for name, field in fields.items()}
        present: set[str] = set()
        for name, value in _pairs(findings, node, where):
            present.add(name)
            if name not in fields:
                known = f"unknown field{did_you_mean(name, fields)}; allowed: {', '.join(fields)}"
                findings.note(value, _inside(where, name), known)
                continue
            values[name] = fields[name].read(findings, value, _inside(where, name))
        for name, field in fields.items():
            if field.required and name not in present and isinstance(node, yaml.MappingNode):
                findings.note(node, _inside(where, name), "is missing")
        return values

    return read


def entries(item: Read) -> Read:
    """A reader of a mapping of names to what *item* reads: returns name -> `Entry`."""

    def read(findings: Findings, node: Node, where: str) -> dict[str, Entry]:
        return {
            name: Entry(item(findings, value, _inside(where, name)), value, _inside(where, name))
            for name, value in _pairs(findings, node, where)
        }

    return read


def listed(item: Read, *, named_by: str = "", minimum: int = 0) -> Read:
    """A reader of a list of what *item* reads: returns a tuple of `Entry`; *named_by* names its items."""

    def read(findings: Findings, node: Node, where: str) -> tuple[Entry, ...]:
        if not isinstance(node, yaml.SequenceNode):
            findings.note(node, where, f"must be a list, not {_kind(node)}")
            return ()
        if len(node.value) < minimum:
            findings.note(node, where, f"must hold at least {minimum}")
        places = [f"{where}[{_label(child, named_by, i)}]" for i, child in enumerate(node.value)]
        return tuple(
            Entry(item(findings, child, place), child, place)
            for child, place in zip(node.value, places, strict=True)
        )

    return read


def text(pattern: str = r"^.*\S.*$", allowed: str = "text") -> Read:
    """A reader of text that matches *pattern*, told as *allowed*."""
    compiled = re.compile(pattern, re.DOTALL)

    def read(findings: Findings, node: Node, where: str) -> str | None:
        value = _scalar(findings, node, where, "str", allowed)
        if value is not None and not compiled.match(value):
            findings.note(node, where, f"{value!r} is not allowed; allowed: {allowed}")
            return None
        return value

    return read


def one_of(*allowed: str) -> Read:
    """A reader of one of the texts *allowed*."""

    def read(findings: Findings, node: Node, where: str) -> str | None:
        told = " | ".join(allowed)
        value = _scalar(findings, node, where, "str", told)
        if value is not None and value not in allowed:
            guess = did_you_mean(value, dict.fromkeys(allowed))
            findings.note(node, where, f"{value!r} is not allowed{guess}; allowed: {told}")
            return None
        return value

    return read


def whole_number(least: int, most: int) -> Read:
    """A reader of a whole number from *least* to *most*."""

    def read(findings: Findings, node: Node, where: str) -> int | None:
        allowed = f"a whole number from {least} to {most}"
        value = _scalar(findings, node, where, "int", allowed)
        if value is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,9}", value) or not least <= int(value) <= most:
            findings.note(node, where, f"{value} is not allowed; allowed: {allowed}")
            return None
        return int(value)

    return read


def boolean(findings: Findings, node: Node, where: str) -> bool | None:
    """A reader of true or false."""
    value = _scalar(findings, node, where, "bool", "true | false")
    return None if value is None else value.lower() in {"true", "yes", "on"}


def duration_ms(findings: Findings, node: Node, where: str) -> int | None:
    """A reader of a duration such as ``30d`` or ``12h``: returns milliseconds."""
    allowed = "a whole number and a unit, s, m, h or d, such as 30d or 12h"
    value = _scalar(findings, node, where, "str", allowed)
    if value is None:
        return None
    matched = _DURATION.match(value)
    if matched is None:
        findings.note(node, where, f"{value!r} is no duration; allowed: {allowed}")
        return None
    return int(matched[1]) * _UNITS_MS[matched[2]]


def day(findings: Findings, node: Node, where: str) -> str | None:
    """A reader of a day such as ``2030-01-31``: returns it as it stands."""
    allowed = "a day, YYYY-MM-DD"
    value = _scalar(findings, node, where, "timestamp", allowed)
    if value is None:
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        findings.note(node, where, f"{value!r} is no day; allowed: {allowed}")
        return None


def _scalar(findings: Findings, node: Node, where: str, kind: str, allowed: str) -> str | None:
    if isinstance(node, yaml.ScalarNode) and node.tag == f"tag:yaml.org,2002:{kind}":
        return str(node.value)
    found = f"{node.value!r}" if isinstance(node, yaml.ScalarNode) and node.value else _kind(node)
    findings.note(node, where, f"{found} has the wrong type; allowed: {allowed}")
    return None


def _pairs(findings: Findings, node: Node, where: str) -> list[tuple[str, Node]]:
    if not isinstance(node, yaml.MappingNode):
        findings.note(node, where, f"must be a mapping, not {_kind(node)}")
        return []
    first: dict[str, Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            findings.note(key, where, f"a name must be text, not {_kind(key)}")
        elif key.value in first:
            findings.note(key, _inside(where, key.value), "stands here twice; keep one")
        else:
            first[str(key.value)] = value
    return list(first.items())


def _label(node: Node, named_by: str, index: int) -> str:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    names = [value.value for key, value in pairs if named_by and key.value == named_by]
    return str(names[0]) if names and isinstance(names[0], str) else str(index)


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _kind(node: Node) -> str:
    if isinstance(node, yaml.ScalarNode) and not node.value:
        return "nothing"
    return _KINDS[type(node).__name__]
