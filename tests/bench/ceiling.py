"""
The ceiling of the tally: a plain aiokafka consumer with its defaults reads and parses, and does nothing else.

Arguments: bootstrap servers, topic, records, ``orjson`` or ``msgspec``, ``batches`` (getmany) or ``singly``
(async for). Prints seconds from the first records that came to the last one parsed.
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


async def batches(consumer: AIOKafkaConsumer, records: int, parse: Callable[[bytes], Any]) -> float:
    """Seconds to read and parse *records* records as they come."""
    fetched = await consumer.getmany(timeout_ms=10_000)
    begun, count = time.perf_counter(), 0
    while count < records:
        for batch in fetched.values():
            for record in batch:
                parse(record.value)
            count += len(batch)
        fetched = await consumer.getmany(timeout_ms=10_000) if count < records else {}
    return time.perf_counter() - begun


async def singly(consumer: AIOKafkaConsumer, records: int, parse: Callable[[bytes], Any]) -> float:
    """Seconds to read and parse *records* records one by one."""
    parse((await consumer.getone()).value)
    begun, count = time.perf_counter(), 1
    async for record in consumer:
        parse(record.value)
        count += 1
        if count == records:
            break
    return time.perf_counter() - begun


HOW = {"batches": batches, "singly": singly}


async def read(servers: str, topic: str, records: int, parser: str, how: str) -> float:
    """Seconds to read and parse *records* records of *topic*, whose consumer is made and ended here."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
        return await HOW[how](consumer, records, PARSERS[parser])
    finally:
        await consumer.stop()


def main() -> None:
    """Read the arguments and print the seconds."""
    servers, topic, records, parser, how = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(read(servers, topic, int(records), parser, how)))


if __name__ == "__main__":
    main()
