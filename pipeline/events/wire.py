"""
How every typed value meets the wire: one frozen struct per type, registered under its ``ce_type``.

Within a major version a field may only be added, with a default. Writers write every field; readers
ignore what they don't know. Facts carry their type in the value as well (field ``type``), so that
they can stand inside an `Activity`.
"""

from enum import StrEnum
from typing import Any, TypeVar

import msgspec

__all__ = ["TYPES", "UNKNOWN", "Text", "ce_type", "registered"]

S = TypeVar("S", bound=type[msgspec.Struct])

#: ``ce_type`` -> the struct that its values are decoded to
TYPES: dict[str, type[msgspec.Struct]] = {}
#: The tag of a union's member that stands for all that this version does not know.
UNKNOWN = "unknown"
_NAMES: dict[type[msgspec.Struct], str] = {}


def registered(name: str) -> Any:
    """Class decorator: values of this struct travel as ``ce_type`` *name* (ends in the major version)."""

    def register(struct: S) -> S:
        assert name not in TYPES, f"{name} is taken"
        TYPES[name] = struct
        _NAMES[struct] = name
        return struct

    return register


def ce_type(struct: type[msgspec.Struct]) -> str:
    """The ``ce_type`` of values of *struct*."""
    return _NAMES[struct]


class Text(StrEnum):
    """A closed set whose unknown members a reader maps to ``OTHER``; the text itself stays in the value."""

    @classmethod
    def _missing_(cls, _: object) -> "Text | None":
        return cls.__members__.get("OTHER")
