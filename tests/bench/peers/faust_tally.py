"""
The tally in Faust: decode, count per key in a table, emit the event with its count, exactly once.

Everything that is not said here is at its default. Arguments: bootstrap servers, topic, topic to write to,
records, application id, state folder. It runs in a Python environment of its own (``faust.txt``).
"""

import asyncio
import hashlib
import os
import sys
from typing import Any

import faust  # type: ignore[import-not-found]

PARTITIONS = 4


class Event(faust.Record, serializer="json"):  # type: ignore[misc, call-arg] # faust is untyped here
    """What is read."""

    eventId: str  # noqa: N815 - as it stands in the record
    type: str
    accountId: str  # noqa: N815
    occurredAt: str  # noqa: N815
    payload: dict[str, Any]


CONSTANT = {
    "ce_specversion": b"1.0",
    "ce_type": b"bench.counted.v1",
    "ce_source": b"/bench/tally",
    "content-type": b"application/json",
}


def headers(event: Any, key: str) -> dict[str, bytes]:
    """CloudEvents attributes and trace, whose ids follow from where the event stood."""
    at = event.message
    place = f"{at.topic}/{at.partition}/{at.offset}".encode()
    trace = hashlib.sha256(place).hexdigest()
    return CONSTANT | {
        "ce_id": hashlib.sha256(b"tally|" + place).hexdigest().encode(),
        "ce_time": event.value.occurredAt.encode(),
        "ce_subject": key.encode(),
        "traceparent": f"00-{trace[:32]}-{trace[32:48]}-01".encode(),
    }


def made(arguments: list[str]) -> faust.App:
    """The application; it ends itself when all records are done."""
    servers, source, target, records, name, folder = arguments
    app = faust.App(
        name,
        broker=f"aiokafka://{servers}",
        store="rocksdb://?driver=rocksdict",
        processing_guarantee="exactly_once",
        topic_partitions=PARTITIONS,
        datadir=folder,
        web_enabled=False,
    )
    events = app.topic(source, key_type=str, key_serializer="raw", value_type=Event)
    out = app.topic(target, key_serializer="raw", value_serializer="json")
    counts = app.Table("counts", default=int, partitions=PARTITIONS)
    done = 0

    async def tally(stream: Any) -> None:
        nonlocal done
        async for event in stream.events():
            key = event.key
            count = counts[key] + 1
            counts[key] = count
            await out.send(
                key=key, value={**event.value.asdict(), "count": count}, headers=headers(event, key)
            )
            done += 1
            if done == int(records):
                app.add_future(ended(app))

    app.agent(events)(tally)
    return app


async def ended(app: faust.App) -> None:
    """Let what is done be committed, and end this process."""
    await asyncio.sleep(2 * app.conf.broker_commit_interval)
    await app.consumer.commit()
    os._exit(0)  # an orderly stop takes a minute


def main() -> None:
    """Tally, and return when all is committed."""
    worker = faust.Worker(made(sys.argv[1:]), loglevel="warning")
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
