"""
Judges records by a condition in CEL, the Common Expression Language (https://cel.dev), as a process.

It is started by `pipeline.tail.condition`, which gives it the condition, then batches of records, and
reads a verdict for each. Whatever a condition does, it does here: the kernel ends this process when one
record takes more than `RECORD_S` of processor time or all of it `MEMORY_BYTES`, also inside of the
library. The library itself matches regular expressions in linear time (RE2), and refuses to nest deeper
than 32 and to loop more than 10,000 times a record.

Frames on standard input and output are a length of four bytes, big-endian, and MessagePack. This file is
run by its path and imports nothing of the project, so that it starts quickly.
"""

import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import msgspec
import orjson
from cel_expr_python import cel

__all__ = ["MEMORY_BYTES", "NO", "RECORD_S", "UNDECIDED", "YES"]

#: Processor time for one record, in seconds; a usual condition takes 50 µs.
RECORD_S = 1.0
#: Address space of the process; 300 MB of it are libraries.
MEMORY_BYTES = 1 << 30

#: Verdicts, a byte each.
NO, YES, UNDECIDED = range(3)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VARIABLES = {
    "topic": cel.Type.STRING,
    "partition": cel.Type.INT,
    "offset": cel.Type.INT,
    "timestamp": cel.Type.TIMESTAMP,
    "key": cel.Type.STRING,
    "headers": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
    "value": cel.Type.DYN,
}
_GIVES = (cel.Type.BOOL, cel.Type.DYN)


def main() -> None:
    """Compile the condition of the first frame, then judge batch after batch until there are no more."""
    _bound()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    try:
        expression = cel.NewEnv(variables=_VARIABLES).compile(_read(source))
    except RuntimeError as error:
        _write(sink, str(error))
        return
    given = expression.return_type()
    _write(sink, "" if given in _GIVES else f"it gives {given.name()}, not true or false")
    while (records := _read(source)) is not None:
        _write(sink, _judged(expression, records))


def _judged(expression: Any, records: Sequence[Any]) -> tuple[bytes, int, str]:
    """A verdict for each of *records*; of the first undecided one its index, -1 if there is none, and why."""
    verdicts = bytearray()
    first, why = -1, ""
    for index, record in enumerate(records):
        signal.setitimer(signal.ITIMER_PROF, RECORD_S)
        verdict, reason = _verdict(expression, record)
        verdicts.append(verdict)
        if verdict == UNDECIDED and first < 0:
            first, why = index, reason
    signal.setitimer(signal.ITIMER_PROF, 0)
    return bytes(verdicts), first, why


def _verdict(expression: Any, record: Sequence[Any]) -> tuple[int, str]:
    try:
        found = expression.eval(data=_variables(record))
    except RuntimeError as error:
        return UNDECIDED, str(error)
    if found.type() == cel.Type.BOOL:
        return (YES if found.value() else NO), ""
    if found.type() == cel.Type.ERROR:
        return UNDECIDED, str(found.value())
    return UNDECIDED, f"it gives {found.type().name()}, not true or false"


def _variables(record: Sequence[Any]) -> Mapping[str, Any]:
    topic, partition, offset, timestamp, key, value, headers = record
    return {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": _EPOCH + timedelta(milliseconds=timestamp),
        "key": (key or b"").decode(errors="replace"),
        "headers": {name: (text or b"").decode(errors="replace") for name, text in headers},
        "value": None if value is None else _json(value),
    }


def _json(value: bytes) -> Any:
    """*value* as JSON, what is none as text."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode(errors="replace")


def _bound() -> None:
    """Let the kernel end this process where it takes too much; it leaves nothing of what it read."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 - not everywhere

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(source: BinaryIO) -> Any:
    """What the next frame holds; None where there is none."""
    length = source.read(4)
    return msgspec.msgpack.decode(source.read(int.from_bytes(length))) if len(length) == 4 else None


def _write(sink: BinaryIO, content: Any) -> None:
    frame = msgspec.msgpack.encode(content)
    sink.write(len(frame).to_bytes(4) + frame)
    sink.flush()


if __name__ == "__main__":
    main()
