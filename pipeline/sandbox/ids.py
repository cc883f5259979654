"""Ids and instants as the two vendors write them, from a seed and so repeatable."""

import random
import string
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

__all__ = ["Ids", "from_wire_time", "wire_time"]

_ALPHANUMERIC: Final = string.ascii_letters + string.digits


class Ids:
    """Draws ids in each vendor's shape from one seeded generator."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(f"ids {seed}")

    def hexadecimal(self) -> str:
        """24 hex digits: every Sakari resource, social-planner tags."""
        return f"{self._random.getrandbits(96):024x}"

    def alphanumeric(self) -> str:
        """20 letters and digits: contacts, locations and users of the Users API."""
        return "".join(self._random.choices(_ALPHANUMERIC, k=20))

    def uuid(self) -> str:
        """A version 4 UUID: webhook ids, client ids, trace ids."""
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def secret(self) -> str:
        """48 hex digits of a made-up token; safe only for a sandbox."""
        return f"{self._random.getrandbits(192):048x}"

    def number(self, below: int) -> int:
        """An integer from 0 to *below* − 1."""
        return self._random.randrange(below)


def wire_time(at: datetime) -> str:
    """*at* (aware) as both vendors write instants: RFC 3339 in UTC with milliseconds and a Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_wire_time(text: str) -> datetime:
    """
    The aware instant that `wire_time` wrote.

    Raises:
        ValueError: *text* is no RFC 3339 instant with an offset.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return at
