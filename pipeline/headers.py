"""
The headers of a record in the bytes that Kafka's record format gives them, and the variable-length integers
of that format.

https://kafka.apache.org/43/implementation/message-format, "Record" and "Record Header": a count, then for
each header the length and bytes of its name and of its value; lengths are zigzag varints, -1 is null.
"""

from collections.abc import Sequence

__all__ = ["COMMON", "NO_HEADERS", "VARINTS", "Header", "decoded", "encoded", "named", "varint"]

Header = tuple[str, bytes]


def varint(number: int) -> bytes:
    """*number* as a zigzag varint, the least significant seven bits first."""
    return VARINTS[number] if -1 <= number < COMMON else _computed(number)


def _computed(number: int) -> bytes:
    rest = (number << 1) ^ (number >> 63)
    digits = bytearray()
    while rest > 0x7F:
        digits.append(0x80 | rest & 0x7F)
        rest >>= 7
    digits.append(rest)
    return bytes(digits)


#: Those from 0 on that take two bytes at most.
COMMON = 1 << 13

#: The varints of what is most often needed: of 0 and above, and last that of -1.
VARINTS: Sequence[bytes] = (*map(_computed, range(COMMON)), _computed(-1))

#: What a record without headers has.
NO_HEADERS = VARINTS[0]

_NULL = varint(-1)


def named(name: str) -> bytes:
    """What stands before the length and bytes of the value of header *name*."""
    text = name.encode()
    return varint(len(text)) + text


def encoded(headers: Sequence[Header]) -> bytes:
    """*headers*, their count included."""
    parts = [varint(len(headers))]
    for name, value in headers:
        parts += (named(name), _NULL if value is None else varint(len(value)) + value)
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
