"""
The ceiling of the tally: a plain aiokafka consumer with its defaults reads and parses, and does nothing else.

Arguments: bootstrap servers, topic, records, ``orjson`` or ``msgspec``. Prints seconds from the first
records that came to the last one parsed.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.bench.tally import Event
from tests.bench.fill import PARTITIONS

PARSERS: dict[str, Callable[[bytes], Any]] = {
    "orjson": orjson.loads,
    "msgspec": msgspec.json.Decoder(Event).decode,
}


async def read(servers: str, topic: str, records: int, parse: Callable[[bytes], Any]) -> float:
    """Seconds to read and parse *records* records of *topic*."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
        fetched = await consumer.getmany(timeout_ms=10_000)
        begun, count = time.perf_counter(), 0
        while fetched:
            for batch in fetched.values():
                for record in batch:
                    parse(record.value)
                count += len(batch)
            if count >= records:
                return time.perf_counter() - begun
            fetched = await consumer.getmany(timeout_ms=10_000)
    finally:
        await consumer.stop()
    raise RuntimeError(f"{topic} ended after {count} records")


def main() -> None:
    """Read the arguments and print the seconds."""
    servers, topic, records, parser = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(read(servers, topic, int(records), PARSERS[parser])))


if __name__ == "__main__":
    main()
