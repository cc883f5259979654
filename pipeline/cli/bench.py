"""`pipeline bench`: standard works, measured."""

import logging
from typing import Annotated

import cyclopts
import msgspec

from pipeline import logs
from pipeline.bench.run import measured
from pipeline.cli.output import print_json

__all__ = ["app"]

app = cyclopts.App(
    name="bench",
    help="""
    Standard works through the runtime as production has it, measured.

    `make bench` runs them beside other stream processors, on the same records and the same broker.
    """,
)


@app.command
async def tally(
    *,
    bootstrap: str,
    topic: str,
    records: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))],
    json: bool = False,
) -> None:
    """
    Count the events of each key of a topic, and pass each on with its count, exactly once.

    The topic's records are JSON objects with eventId, type, accountId, occurredAt and payload (an
    object), and have a key. Results go to the topic of the same name with .out behind it, which is made
    where it is missing, as are a changelog and a few others; nothing is deleted. Every run reads from the
    beginning under an application id of its own. In seconds: from the first partition's being ready to be
    read to the last commit.

    Exit codes: 0 measured, 1 failed, 2 there is no such topic, or it has fewer records or other ones.

    Examples::

        pipeline bench tally --bootstrap 127.0.0.1:9092 --topic orders --records 400000 --json

    Parameters
    ----------
    bootstrap
        Kafka's host:port,….
    topic
        The topic to read.
    records
        Stop when so many of its records are committed.
    json
        Print one JSON object.
    """
    logs.configure("warning", "json" if json else "auto")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say reaches us as errors
    figures = msgspec.to_builtins(await measured(bootstrap, topic, records))
    if json:
        print_json("bench", work="tally", **figures)
        return
    for name, value in figures.items():
        print(f"{name:<15} {value:,}" if not isinstance(value, str) else f"{name:<15} {value}")
