"""Our record batches are what aiokafka's parser, which is Kafka's format, reads back."""

from typing import Any

from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from pipeline import headers as wire
from pipeline.codec import Sent
from pipeline.runtime.record_batch import RecordBatch, batches

headers = st.lists(
    st.tuples(st.text(max_size=5), st.binary(max_size=9) | st.integers(60, 70).map(bytes)), max_size=4
)
times = st.integers(0, 2**45)
fields = st.none() | st.binary(max_size=20) | st.integers(8_190, 8_200).map(bytes)
sent: st.SearchStrategy[Sent] = st.tuples(times, fields, fields, headers.map(wire.encoded))


def read(batch: RecordBatch) -> list[Any]:
    """The records of *batch*, its checksum verified."""
    records = MemoryRecords(batch._build())
    parsed = records.next_batch()
    assert parsed.validate_crc()
    assert not records.has_next()
    return list(parsed)


@given(st.lists(sent, max_size=20), st.integers(1, 30_000))
def test_what_is_encoded_is_what_is_read(records: list[Sent], most_bytes: int) -> None:
    """Times, keys, values, headers and order survive, however the records are split."""
    made = list(batches(records, most_bytes))
    found = [record for batch in made for record in read(batch)]
    assert [
        (each.timestamp, each.key, each.value, wire.encoded(list(each.headers))) for each in found
    ] == records
    assert sum(batch.record_count() for batch in made) == len(records)


@given(st.lists(sent, min_size=2, max_size=20), st.integers(1, 30_000))
def test_no_batch_is_larger_than_its_bound(records: list[Sent], most_bytes: int) -> None:
    """Only a record that is larger by itself makes a larger batch."""
    for batch in batches(records, most_bytes):
        overhead = 61 + 5 * batch.record_count()
        assert batch.record_count() == 1 or len(batch._build()) <= most_bytes + overhead


def test_a_batch_tells_its_producer() -> None:
    """Producer id, epoch and sequence stand where the broker looks for repeated batches."""
    (batch,) = batches([(5, b"k", b"v", wire.NO_HEADERS)], 1_000)
    batch._set_producer_state(7, 3, 11)
    parsed = MemoryRecords(batch._build()).next_batch()
    assert (parsed.producer_id, parsed.producer_epoch, parsed.base_sequence) == (7, 3, 11)
    assert parsed.is_transactional


@given(headers)
def test_headers_are_read_back(given_headers: list[tuple[str, bytes]]) -> None:
    """Decoding is the inverse of encoding."""
    assert wire.decoded(wire.encoded(given_headers)) == given_headers


@given(st.integers(-(2**45), 2**45))
def test_varints_are_zigzag(number: int) -> None:
    """Every integer survives, in the same bytes when they are remembered."""
    made = wire.VARINTS[number]
    assert wire._read(made, 0) == (number, len(made))
    assert wire.VARINTS[number] == made
