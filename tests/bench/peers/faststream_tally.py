"""
The tally in FastStream, as far as it goes: decode, count per key in a dict, emit the event with its count.

It has no state and no transactions of its own: counts are lost at its end, and it is at least once. All else
is at its default, but for its log of every record. Arguments: bootstrap servers, topic, topic to write to,
records, application id, state folder. It runs in a Python environment of its own (``faststream.txt``).
"""

import asyncio
import hashlib
import sys
from collections import Counter
from typing import Any

from faststream import FastStream  # type: ignore[import-not-found]
from faststream.kafka import KafkaBroker, KafkaMessage  # type: ignore[import-not-found]

CONSTANT = {
    "ce_specversion": "1.0",
    "ce_type": "bench.counted.v1",
    "ce_source": "/bench/tally",
}


def headers(event: dict[str, Any], at: Any) -> dict[str, str]:
    """CloudEvents attributes and trace, whose ids follow from where the event stood; it adds content-type."""
    place = f"{at.topic}/{at.partition}/{at.offset}".encode()
    trace = hashlib.sha256(place).hexdigest()
    return CONSTANT | {
        "ce_id": hashlib.sha256(b"tally|" + place).hexdigest(),
        "ce_time": event["occurredAt"],
        "ce_subject": at.key.decode(),
        "traceparent": f"00-{trace[:32]}-{trace[32:48]}-01",
    }


def main() -> None:
    """Tally, and return when all is written."""
    servers, source, target, records, name, _ = sys.argv[1:]
    broker = KafkaBroker(servers, logger=None)  # else it logs every record
    app = FastStream(broker)
    publisher = broker.publisher(target)
    counts: Counter[bytes] = Counter()
    done = 0

    async def tally(event: dict[str, Any], message: KafkaMessage) -> None:
        nonlocal done
        at = message.raw_message
        counts[at.key] += 1
        counted = {**event, "count": counts[at.key]}
        await publisher.publish(counted, key=at.key, headers=headers(event, at))
        if (done := done + 1) == int(records):
            app.exit()

    broker.subscriber(source, group_id=name, auto_offset_reset="earliest")(tally)
    asyncio.run(app.run(log_level=40))


if __name__ == "__main__":
    main()
