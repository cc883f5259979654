"""`pipeline topics lag`: how far consumer groups are behind."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from pipeline.cli.output import print_json, print_table

if TYPE_CHECKING:
    from pipeline.runtime.lags import GroupLag
    from pipeline.settings import Settings

__all__ = ["show"]

_CLEAR: Final = "\x1b[H\x1b[2J"
_COLUMNS: Final = ("group", "topic", "partition", "next", "end", "records", "seconds")


async def show(settings: "Settings", groups: Sequence[str], *, watch_s: float | None, json: bool) -> None:
    """Print how far *groups* are behind, every *watch_s* seconds until a signal, or once."""
    from pipeline.cli.stopping import stopped_by_signals  # noqa: PLC0415 - list needs no Kafka client
    from pipeline.runtime.connection import Connection  # noqa: PLC0415
    from pipeline.runtime.lags import lags  # noqa: PLC0415

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say reaches us as errors
    connection = Connection(settings.kafka, settings.runtime, "pipeline-lag")
    if watch_s is None:
        _print(await lags(connection, groups), json=json)
        return
    with stopped_by_signals():
        while True:
            found = await lags(connection, groups)
            if sys.stdout.isatty() and not json:
                print(_CLEAR, end="")
            _print(found, json=json)
            await asyncio.sleep(watch_s)


def _print(found: "Sequence[GroupLag]", *, json: bool) -> None:
    if json:
        print_json("lag", lags=msgspec.to_builtins(found))
    else:
        print_table("Lag", _COLUMNS, [_row(each) for each in found])
        sys.stdout.flush()


def _row(each: "GroupLag") -> tuple[str, ...]:
    seconds = "?" if each.seconds is None else f"{each.seconds:,.1f}"
    numbers = (f"{each.next_offset:,}", f"{each.end:,}", f"{each.records:,}", seconds)
    return each.group, each.topic, str(each.partition), *numbers
