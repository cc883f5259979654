"""
Fill a topic with JSON objects of 450 bytes each: eventId, type, accountId, occurredAt, payload.

Run it as ``python tests/bench/fill.py --bootstrap 127.0.0.1:9092 --topic events --records 400000``.
Keys come in a shuffled order that is the same every time, each as often as any other; the topic is made
where it is missing.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaProducer

from pipeline.instants import from_ms
from pipeline.partitioning import partition_of
from pipeline.runtime.admin import ensure
from pipeline.runtime.topic_plan import Wanted

RECORD_BYTES = 450
KEYS = 10_000
PARTITIONS = 4
_FIRST_MS = 1_893_456_000_000
_TYPES = ("message.sent", "message.delivered", "message.received", "contact.changed")


def value(number: int, key: str, rng: random.Random) -> bytes:
    """The *number*-th event, of *key*: 450 bytes of JSON with a payload as an API's webhook has it."""
    payload: dict[str, Any] = {
        "contact": {"id": key, "mobile": f"+1555{rng.randrange(10**7):07}", "tags": ["vip", "summer"]},
        "message": {"segments": rng.randrange(1, 4), "price": "0.0075", "outgoing": bool(number & 1)},
        "text": "",
    }
    event = {
        "eventId": f"{rng.getrandbits(128):032x}",
        "type": _TYPES[number % len(_TYPES)],
        "accountId": f"acc-{number % 50:04}",
        "occurredAt": from_ms(_FIRST_MS + number),
        "payload": payload,
    }
    payload["text"] = "x" * (RECORD_BYTES - len(orjson.dumps(event)))
    return orjson.dumps(event)


def records(count: int, keys: int, seed: int = 7) -> Iterator[tuple[bytes, bytes]]:
    """*count* keys and values over *keys* keys, each of which comes equally often."""
    rng = random.Random(seed)
    names = [f"contact-{number:08}" for number in range(keys)]
    for number in range(count):
        if number % keys == 0:
            rng.shuffle(names)
        key = names[number % keys]
        yield key.encode(), value(number, key, rng)


async def make(servers: str, name: str, partitions: int, **configs: str) -> None:
    """Make topic *name* where it is missing."""
    configs = {"cleanup.policy": "delete", **configs}
    topic = Wanted(name=name, partitions=partitions, replication=1, configs=configs, keyed=True)
    await ensure({"bootstrap_servers": servers}, [topic])


async def fill(servers: str, topic: str, count: int, keys: int = KEYS, partitions: int = PARTITIONS) -> float:
    """Write *count* records over *keys* keys to *topic*; return the seconds it took."""
    await make(servers, topic, partitions)
    begun = time.perf_counter()
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, enable_idempotence=True, max_batch_size=512 * 1024, linger_ms=5
    )
    await producer.start()
    try:
        builders: dict[int, Any] = {}
        at = time.time_ns() // 1_000_000
        for key, body in records(count, keys):
            place = partition_of(key, partitions)
            builder = builders.get(place) or builders.setdefault(place, producer.create_batch())
            if builder.append(timestamp=at, key=key, value=body, headers=[]) is None:
                await producer.send_batch(builder, topic, partition=place)
                builders[place] = producer.create_batch()
                builders[place].append(timestamp=at, key=key, value=body, headers=[])
        for place, builder in builders.items():
            await producer.send_batch(builder, topic, partition=place)
        await producer.flush()
    finally:
        await producer.stop()
    return time.perf_counter() - begun


def main() -> None:
    """Parse the command line, fill, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bootstrap", required=True, help="Kafka's host:port")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="where the topic is to be made")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seconds = runner.run(fill(given.bootstrap, given.topic, given.records, given.keys, given.partitions))
    print(orjson.dumps({"kind": "filled", **vars(given), "seconds": round(seconds, 2)}).decode())


if __name__ == "__main__":
    main()
