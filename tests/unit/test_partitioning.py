"""Partitions: those that every other Kafka client would choose."""

import pytest
from aiokafka.partitioner import murmur2 as kafkas
from hypothesis import given
from hypothesis import strategies as st

from pipeline.partitioning import _REMEMBERED_BYTES, _remembered, murmur2, partition_of


@given(st.binary(max_size=300))
def test_the_hash_is_kafkas(data: bytes) -> None:
    """As aiokafka computes it, itself a translation of Kafka's own."""
    assert murmur2(data) == kafkas(data) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_of_kafkas_own_test_vectors(data: bytes, wanted: int) -> None:
    """From ``UtilsTest.testMurmur2`` of Apache Kafka; signed there."""
    assert murmur2(data) == wanted & 0xFFFFFFFF


@given(st.binary(max_size=600), st.integers(1, 1_000))
def test_a_key_has_one_partition_of_those_there_are(key: bytes, partitions: int) -> None:
    """The sign is masked as the default partitioner does; remembered or not is the same."""
    found = partition_of(key, partitions)
    assert found == (kafkas(key) & 0x7FFFFFFF) % partitions
    assert found == partition_of(key, partitions)


def test_long_keys_are_not_remembered() -> None:
    """Ids come from outside: memory must not grow with them."""
    before = _remembered.cache_info().currsize
    partition_of(b"x" * (_REMEMBERED_BYTES + 1), 7)
    assert _remembered.cache_info().currsize == before
