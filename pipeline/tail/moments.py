"""Where reading begins and ends, as it is typed: ``10m``, ``2030-01-01T…``, ``3:1200``."""

import re
from collections.abc import Sequence
from typing import Final

from pipeline.errors import ConfigError
from pipeline.instants import parse, to_ms

__all__ = ["moment_ms", "places"]

_AGO: Final = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PLACE: Final = re.compile(r"(\d{1,6}):(\d{1,18})")


def moment_ms(option: str, text: str, now_ms: int) -> int:
    """
    Milliseconds since 1970 of *text*: a time, or how long before *now_ms*; *option* is where it stands.

    Raises:
        ConfigError: it is neither.
    """
    if ago := _AGO.fullmatch(text):
        return now_ms - int(ago[1]) * _UNITS_MS[ago[2]]
    try:
        return to_ms(parse(f"{text}T00:00" if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else text))
    except ValueError as error:
        allowed = "how long ago, such as 10m, 2h or 1d, or a time such as 2030-01-01T12:00:00Z"
        raise ConfigError(f"{option}: {text!r} is no time; allowed: {allowed}") from error


def places(option: str, texts: Sequence[str]) -> dict[int, int]:
    """
    Partition -> offset of *texts*, each as ``partition:offset``.

    Raises:
        ConfigError: one is not so, or a partition is there twice.
    """
    found: dict[int, int] = {}
    for text in (each for given in texts for each in given.split(",")):
        place = _PLACE.fullmatch(text.strip())
        if place is None:
            raise ConfigError(f"{option}: {text!r} is no place; allowed: partition:offset, such as 0:1200")
        if int(place[1]) in found:
            raise ConfigError(f"{option}: partition {place[1]} is there twice")
        found[int(place[1])] = int(place[2])
    return found
