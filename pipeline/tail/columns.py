"""What of a record stands in a line: parts of it by path, as `pipeline tail --columns` names them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import msgspec
import orjson

from pipeline.checked_yaml import did_you_mean
from pipeline.codec import Record, text_headers
from pipeline.errors import ConfigError
from pipeline.instants import from_ms
from pipeline.masking import MASKED, masked, masked_headers
from pipeline.topics import Topics

__all__ = ["DEFAULT", "Column", "Viewer", "columns"]

#: What a line of CSV has unless columns are named.
DEFAULT: Final = ("timestamp", "partition", "offset", "key", "headers.ce_type", "value")

#: Levels that orjson writes, less those of a line; it reads more.
_WRITABLE: Final = 200

_PARTS: Final = ("topic", "partition", "offset", "timestamp", "key", "headers", "value", "value_bytes")


@final
class Column(msgspec.Struct, frozen=True):
    """A part of a record; *steps* lead on from it, ``*`` to every item of a list."""

    name: str
    part: str
    steps: tuple[str, ...] = ()

    def of(self, shown: Mapping[str, Any]) -> Any:
        """What stands there in *shown*, None where there is nothing."""
        return _followed(shown[self.part], self.steps)


def columns(paths: Sequence[str]) -> tuple[Column, ...]:
    """
    The columns that *paths* name, such as ``value.contact.tags.*.name`` or ``headers.ce_type``.

    Raises:
        ConfigError: a path begins with no part of a record.
    """
    names = [path.strip() for given in paths for path in given.split(",") if path.strip()]
    return tuple(_column(name) for name in names)


def _column(path: str) -> Column:
    part, _, rest = path.partition(".")
    if part not in _PARTS or (rest and part not in {"headers", "value"}):
        guess = did_you_mean(part, dict.fromkeys(_PARTS))
        allowed = "topic | partition | offset | timestamp | key | headers.NAME | value.PATH | value_bytes"
        raise ConfigError(f"--columns: {path!r} is no part of a record{guess}; allowed: {allowed}")
    steps = (rest,) if part == "headers" else tuple(rest.split("."))
    return Column(path, part, steps if rest else ())


def _followed(value: Any, steps: Sequence[str]) -> Any:
    for index, step in enumerate(steps):
        match value:
            case dict():
                value = value.get(step)
            case list() if step == "*":
                return [_followed(each, steps[index + 1 :]) for each in value]
            case list() if step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            case _:
                return value if value == MASKED else None
    return value


def _json(body: bytes) -> Any:
    """*body* as JSON; as text where it is none, or nested deeper than it could be written again."""
    try:
        value = orjson.loads(body)
        if body.count(b"[") + body.count(b"{") > _WRITABLE:
            orjson.dumps([[value]])  # as it stands in a line
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return body.decode(errors="replace")
    return value


@final
class Viewer:
    """Makes of records what is shown of them; *unmask* shows what tells of people as well."""

    def __init__(self, topics: Topics, *, unmask: bool) -> None:
        self._topics = topics
        self._unmask = unmask

    def shown(self, record: Record) -> dict[str, Any]:
        """The parts of *record*, of what JSON knows."""
        headers = text_headers(record.headers)
        return {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": from_ms(record.timestamp),
            "key": None if record.key is None else record.key.decode(errors="replace"),
            "headers": headers if self._unmask else masked_headers(headers),
            "value": self._value(record, headers),
            "value_bytes": len(record.value or b""),
        }

    def _value(self, record: Record, headers: Mapping[str, str]) -> Any:
        if record.value is None:
            return None
        value = _json(record.value)
        return value if self._unmask else masked(value, self._type(record.topic, headers))

    def _type(self, topic: str, headers: Mapping[str, str]) -> str:
        """What the value claims to be, or must be where only one type may stand; else nothing."""
        known = self._topics.get(topic)
        if known is not None and known.types == ("raw",):
            return ""
        return headers.get("ce_type") or (known.types[0] if known and len(known.types) == 1 else "")
