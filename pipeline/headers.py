"""
The headers of a record in the bytes that Kafka's record format gives them, and the variable-length integers
of that format.

https://kafka.apache.org/43/implementation/message-format, "Record" and "Record Header": a count, then for
each header the length and bytes of its name and of its value; lengths are zigzag varints, -1 is null.
"""

from collections.abc import Mapping, Sequence
from typing import final

__all__ = [
    "EFFECTS",
    "NO_HEADERS",
    "REPLAY",
    "VARINTS",
    "Header",
    "Lengths",
    "decoded",
    "encoded",
    "is_quiet",
    "marks",
    "named",
]

Header = tuple[str, bytes]

#: Marks a record that a replay has copied, and what follows from it: its value is the replay's job.
REPLAY = "replay"

#: Lets sinks act on such a record all the same; its value is ``true``.
EFFECTS = "replay_effects"

#: What stands before longer values is seldom needed, and not remembered.
_COMMON = 1 << 13


def _varint(number: int) -> bytes:
    """*number* as a zigzag varint, the least significant seven bits first."""
    rest = (number << 1) ^ (number >> 63)
    digits = bytearray()
    while rest > 0x7F:
        digits.append(0x80 | rest & 0x7F)
        rest >>= 7
    digits.append(rest)
    return bytes(digits)


@final
class Lengths(dict[int, bytes]):
    """Length of a value, -1 for null -> *before* and that length as a varint."""

    def __init__(self, before: bytes = b"") -> None:
        super().__init__()
        self._before = before

    def __missing__(self, length: int) -> bytes:
        made = self._before + _varint(length)
        if -1 <= length < _COMMON:
            self[length] = made
        return made


#: Number -> its varint.
VARINTS: Mapping[int, bytes] = Lengths()

#: What a record without headers has.
NO_HEADERS = VARINTS[0]


def marks(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What of *headers* every record inherits that follows from one of a replay; empty of any other."""
    if REPLAY not in headers:
        return ()
    return tuple((name, headers[name]) for name in (REPLAY, EFFECTS) if name in headers)


def is_quiet(headers: Mapping[str, str]) -> bool:
    """Whether nothing is done outside because of a record with *headers*: a replay's, not let act."""
    return REPLAY in headers and headers.get(EFFECTS) != "true"


def named(name: str) -> Lengths:
    """What stands before the value of header *name*, by its length."""
    text = name.encode()
    return Lengths(VARINTS[len(text)] + text)


def encoded(headers: Sequence[Header]) -> bytes:
    """*headers*, their count included."""
    parts = [VARINTS[len(headers)]]
    for name, value in headers:
        parts += (named(name)[-1 if value is None else len(value)], value or b"")
    return b"".join(parts)


def decoded(headers: bytes) -> list[Header]:
    """What ``encoded`` made bytes of; there are no nulls among what the pipeline writes."""
    count, at = _read(headers, 0)
    found = []
    for _ in range(count):
        length, at = _read(headers, at)
        name = headers[at : at + length].decode()
        length, at = _read(headers, at + length)
        found.append((name, headers[at : at + length]))
        at += length
    return found


def _read(source: bytes, at: int) -> tuple[int, int]:
    """The varint at *at*, and where it ends."""
    zigzag = shift = 0
    while True:
        byte = source[at]
        at += 1
        zigzag |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (zigzag >> 1) ^ -(zigzag & 1), at
        shift += 7
