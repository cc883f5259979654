"""
Encodes records into the batches that Kafka stores, version 2 of its format.

aiokafka's builder is called record by record and encodes each header anew; of a table of events most of
the time went there. A `RecordBatch` takes records whose headers are bytes already, and stands in for
aiokafka's ``BatchBuilder`` at ``send_batch``, which asks no more of it than what it has here.

https://kafka.apache.org/43/implementation/message-format, "Record Batch".
"""

from collections.abc import Iterator, Sequence
from struct import Struct

from aiokafka.record.util import calc_crc32c

from pipeline.codec import Sent
from pipeline.headers import VARINTS

__all__ = ["RecordBatch", "batches"]

_MAGIC = 2
_NO_LEADER_EPOCH = -1
_TRANSACTIONAL = 0x10

#: Base offset, length of what follows, leader epoch, magic, checksum of what follows.
_OUTER = Struct(">qiibI")
_OUTER_COUNTED = 9  # bytes of it that the length counts: those after the length

#: The most bytes that a record has besides key, value and headers: its attributes and five varints.
_MOST_AROUND = 1 + 5 + 10 + 5 + 5 + 5

#: Attributes, last offset delta, first and largest timestamp, producer id and epoch, sequence, count.
_INNER = Struct(">hiqqqhii")


class RecordBatch:
    """One batch for one partition."""

    def __init__(self, parts: Sequence[bytes], count: int, times: tuple[int, int]) -> None:
        self._parts = parts
        self._count = count
        self._times = times
        self._producer = (-1, -1, -1)
        self._buffer: bytes | None = None

    def record_count(self) -> int:
        """How many records it holds."""
        return self._count

    def close(self) -> None:
        """Nothing more is taken: it never is."""

    def closed(self) -> bool:
        """Whether it takes no more: always, so that no linger is waited for."""
        return True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        if self._buffer is None:
            first, largest = self._times
            inner = _INNER.pack(_TRANSACTIONAL, self._count - 1, first, largest, *self._producer, self._count)
            counted = b"".join((inner, *self._parts))
            checksum = calc_crc32c(counted)
            outer = _OUTER.pack(0, _OUTER_COUNTED + len(counted), _NO_LEADER_EPOCH, _MAGIC, checksum)
            self._buffer = outer + counted
            self._parts = ()
        return self._buffer


def batches(records: Sequence[Sent], most_bytes: int) -> Iterator[RecordBatch]:
    """*records* in transactional batches of at most *most_bytes*, or of one record that is larger."""
    parts: list[bytes] = []
    size = number = first = largest = 0
    for timestamp, key, value, headers in records:
        length = len(value or b"") + len(key or b"") + len(headers)
        if number and size + length + _MOST_AROUND > most_bytes:
            yield RecordBatch(parts, number, (first, largest))
            parts, size, number = [], 0, 0
        if not number:
            first = largest = timestamp
        elif timestamp > largest:
            largest = timestamp
        # without its length: attributes, timestamp and offset deltas, key, value, headers
        body = b"".join(
            (
                b"\0",
                VARINTS[timestamp - first],
                VARINTS[number],
                VARINTS[-1 if key is None else len(key)],
                key or b"",
                VARINTS[-1 if value is None else len(value)],
                value or b"",
                headers,
            )
        )
        parts += (VARINTS[len(body)], body)
        size += length + _MOST_AROUND
        number += 1
    if number:
        yield RecordBatch(parts, number, (first, largest))
