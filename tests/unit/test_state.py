"""Layers over a backend look like one merged dict, whatever was written where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.runtime.state import Layers, Memory
from pipeline.stage import Delete, Put, Store, Write

NUMBERS: Store[int] = Store("numbers", int)
OTHERS: Store[int] = Store("numbers2", int)

keys = st.text(alphabet="ab~é😀", min_size=0, max_size=3)
writes = st.lists(st.tuples(keys, st.none() | st.integers(0, 9)), max_size=12)


def as_write(key: str, value: int | None) -> Write:
    """A put, or a delete for None."""
    return Delete(NUMBERS, key) if value is None else Put(NUMBERS, key, value)


def layered(batches: list[list[tuple[str, int | None]]], committed: int) -> tuple[Layers, dict[str, int]]:
    """*batches* written one layer each, the first *committed* of them to the backend; and the same merged."""
    backend, merged = Memory(), dict[str, int | None]()
    layers = Layers(0, (NUMBERS, OTHERS), backend)
    for number, batch in enumerate(batches):
        layers.push()
        layers.write(as_write(key, value) for key, value in batch)
        layers.write([Put(OTHERS, "a", 1)])
        merged |= dict(batch)
        if number < committed:
            backend.apply(layers.changes())
            layers.committed()
    return layers, {key: value for key, value in merged.items() if value is not None}


@given(st.lists(writes, max_size=4), st.integers(0, 4), keys, keys, st.integers(0, 5))
def test_a_scan_is_the_merged_dict_in_order(
    batches: list[list[tuple[str, int | None]]], committed: int, start: str, end: str, limit: int
) -> None:
    """Scanning layers gives what scanning one dict would, in byte order, up to the limit."""
    layers, merged = layered(batches, committed)
    wanted = sorted((k.encode(), v) for k, v in merged.items() if start.encode() <= k.encode() < end.encode())
    found = [(key.encode(), value) for key, value in layers.scan(NUMBERS, start, end, limit)]
    assert found == wanted[:limit]


@given(st.lists(writes, max_size=4), st.integers(0, 4), keys)
def test_a_get_is_the_merged_dict(
    batches: list[list[tuple[str, int | None]]], committed: int, key: str
) -> None:
    """The newest layer wins, a deletion included."""
    layers, merged = layered(batches, committed)
    assert layers.get(NUMBERS, key) == merged.get(key)


def test_a_scan_keeps_what_it_began_with() -> None:
    """Writes after the call are not seen by a scan that is still being read."""
    layers, _ = layered([[("a", 1), ("b", 2)]], 0)
    scanned = layers.scan(NUMBERS, "", "~")
    layers.write([Delete(NUMBERS, "b"), Put(NUMBERS, "c", 3)])
    assert list(scanned) == [("a", 1), ("b", 2)]


def test_discarded_layers_leave_nothing() -> None:
    """After a failure only what is committed is read."""
    layers, _ = layered([[("a", 1)], [("a", 2), ("b", 3)]], 1)
    layers.discard()
    assert list(layers.scan(NUMBERS, "", "~")) == [("a", 1)]


def test_what_cannot_be_encoded_is_known_before_it_is_written() -> None:
    """A value without an encoding, or one too large for its changelog, is refused by the check."""
    layers, _ = layered([[("a", 1)]], 0)
    with pytest.raises(OverflowError):
        layers.check([Put(NUMBERS, "a", 2), Put(NUMBERS, "b", 1 << 70)])
    with pytest.raises(RecordError, match="numbers"):
        layers.check([Put(NUMBERS, "x" * 1_000_000, 1)])
    assert layers.get(NUMBERS, "a") == 1


@given(st.lists(writes, min_size=1, max_size=6), st.lists(keys, max_size=6), st.integers(1, 3))
def test_what_is_kept_decoded_is_what_is_committed(
    batches: list[list[tuple[str, int | None]]], read: list[str], cached: int
) -> None:
    """However few values are kept, a read after any commit gives what the backend holds."""
    backend = Memory()
    layers, plain = Layers(0, (NUMBERS,), backend, cached), Layers(0, (NUMBERS,), backend)
    for batch in batches:
        layers.push()
        layers.write(as_write(key, value) for key, value in batch)
        backend.apply(layers.changes())
        layers.committed()
        assert [layers.get(NUMBERS, key) for key in read] == [plain.get(NUMBERS, key) for key in read]


def test_a_named_changelog_is_json() -> None:
    """A store behind a topic that others read has the JSON which that topic promises."""
    schedule: Store[dict[str, int]] = Store("schedule", dict[str, int], changelog="poll.schedule")
    layers = Layers(0, (schedule,), Memory())
    layers.push()
    layers.write([Put(schedule, "k", {"b": 1, "a": 2})])
    assert layers.changes().by_store == {"schedule": [(b"k", b'{"a":2,"b":1}')]}
