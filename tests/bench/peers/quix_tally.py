"""
The tally in Quix Streams: decode, count per key in its state, emit the event with its count, exactly once.

Everything that is not said here is at its default. Arguments: bootstrap servers, topic, topic to write to,
records, application id, state folder. It runs in a Python environment of its own (``quix.txt``).
"""

import hashlib
import sys
from typing import Any

from quixstreams import Application, State, message_context  # type: ignore[import-not-found]

CONSTANT = (
    ("ce_specversion", b"1.0"),
    ("ce_type", b"bench.counted.v1"),
    ("ce_source", b"/bench/tally"),
    ("content-type", b"application/json"),
)


def counted(value: dict[str, Any], state: State) -> dict[str, Any]:
    """The event with its count."""
    count = state.get("count", 0) + 1
    state.set("count", count)
    value["count"] = count
    return value


def headers(value: dict[str, Any], key: str, _: int, __: Any) -> list[tuple[str, bytes]]:
    """CloudEvents attributes and trace, whose ids follow from where the event stood."""
    at = message_context()
    place = f"{at.topic}/{at.partition}/{at.offset}".encode()
    trace = hashlib.sha256(place).hexdigest()
    return [
        *CONSTANT,
        ("ce_id", hashlib.sha256(b"tally|" + place).hexdigest().encode()),
        ("ce_time", value["occurredAt"].encode()),
        ("ce_subject", key.encode()),
        ("traceparent", f"00-{trace[:32]}-{trace[32:48]}-01".encode()),
    ]


def main() -> None:
    """Tally, and return when all is committed."""
    servers, source, target, records, application_id, folder = sys.argv[1:]
    app = Application(
        broker_address=servers,
        consumer_group=application_id,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=folder,
        loglevel="WARNING",
    )
    events = app.dataframe(app.topic(source, value_deserializer="json", key_deserializer="str"))
    out = app.topic(target, value_serializer="json", key_serializer="str")
    events.apply(counted, stateful=True).set_headers(headers).to_topic(out)
    app.run(count=int(records))


if __name__ == "__main__":
    main()
