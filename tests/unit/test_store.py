"""A task's local store: whatever is worthless is wiped, whatever is kept is whole."""

import time
from pathlib import Path

import msgspec
import pytest

from pipeline.errors import BrokerError
from pipeline.runtime.store import MAX_AGE_S, LocalStore, Origin, StoreError

ORIGIN = Origin("cluster", "app", "enrich", 0, 1)


def opened(folder: Path, origin: Origin = ORIGIN) -> LocalStore:
    """The store in *folder*."""
    store = LocalStore(folder, origin)
    store.open()
    return store


def written(folder: Path) -> None:
    """Leave two entries in *folder*, as far as offset 7 of their changelog."""
    store = opened(folder)
    store.apply([(b"s\0a", b"1"), (b"s\0b", b"2"), (b"s\0c", b"3")], {"log": 6})
    store.apply([(b"s\0b", None)], {"log": 7})
    store.close()


def content(store: LocalStore) -> list[tuple[bytes, bytes]]:
    """All entries of the store named ``s``."""
    return list(store.scan(b"s\0", b"s\1"))


def test_a_kept_store_has_its_entries_and_offsets(tmp_path: Path) -> None:
    """Entries and the changelog offsets that they reach to come back together."""
    written(tmp_path)
    store = opened(tmp_path)
    assert (content(store), store.offsets) == ([(b"s\0a", b"1"), (b"s\0c", b"3")], {"log": 7})
    store.close()


def test_entries_and_offsets_are_written_at_once_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the write fails the offsets stay, so that the restore brings what is missing."""
    written(tmp_path)
    store = opened(tmp_path)
    real = store._db

    class Full:
        def write(self, _: object) -> None:
            raise OSError("no space left")

    monkeypatch.setattr(store, "_db", Full())
    with pytest.raises(StoreError, match="no space left"):
        store.apply([(b"s\0a", b"9")], {"log": 8})
    monkeypatch.setattr(store, "_db", real)
    assert (store.get(b"s\0a"), store.offsets) == (b"1", {"log": 7})
    store.close()


@pytest.mark.parametrize(
    "change",
    [
        {"cluster_id": "other"},
        {"application_id": "r1"},
        {"stage": "x"},
        {"partition": 1},
        {"state_version": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_store_of_another_origin_is_wiped(tmp_path: Path, change: dict[str, object]) -> None:
    """Entries of another cluster, application or state version are worth nothing."""
    written(tmp_path)
    store = opened(tmp_path, msgspec.structs.replace(ORIGIN, **change))
    assert (content(store), store.offsets) == ([], {})
    store.close()


def test_an_old_store_is_wiped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After half of the changelog's tombstone retention a removal may have been missed."""
    written(tmp_path)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + MAX_AGE_S + 1)
    store = opened(tmp_path)
    assert (content(store), store.offsets) == ([], {})
    store.close()


@pytest.mark.parametrize("file", ["CURRENT", "MANIFEST-*"])
def test_a_corrupt_store_is_discarded(tmp_path: Path, file: str) -> None:
    """What RocksDB cannot open is begun anew, and can be written to."""
    written(tmp_path)
    for each in tmp_path.glob(file):
        each.write_bytes(b"nonsense")
    store = opened(tmp_path)
    store.apply([(b"s\0z", b"1")], {"log": 1})
    assert (content(store), store.offsets) == ([(b"s\0z", b"1")], {"log": 1})
    store.close()


def test_entries_without_offsets_are_wiped(tmp_path: Path) -> None:
    """Nobody can say how far they reach."""
    written(tmp_path)
    store = opened(tmp_path)
    store._db.delete(b"\0meta")
    store.close()
    again = opened(tmp_path)
    assert (content(again), again.offsets) == ([], {})
    again.close()


def test_a_folder_in_use_is_told(tmp_path: Path) -> None:
    """Two processes on one folder: the second fails, and may try again when the first has gone."""
    store = opened(tmp_path)
    second = LocalStore(tmp_path, ORIGIN)
    with pytest.raises(BrokerError, match="in use by another process"):
        second.open()
    store.close()
    second.open()
    assert second.offsets == {}
    second.close()


def test_nothing_is_read_of_a_store_that_is_not_open(tmp_path: Path) -> None:
    """Before it is opened, and after it is closed, it is empty."""
    written(tmp_path)
    store = LocalStore(tmp_path, ORIGIN)
    assert (store.get(b"s\0a"), content(store)) == (None, [])
    store.open()
    store.close()
    assert (store.get(b"s\0a"), content(store)) == (None, [])


def test_many_values_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    """One call gives what one get for each key would, with None where there is nothing."""
    written(tmp_path)
    store = opened(tmp_path)
    keys = [b"s\0c", b"s\0b", b"s\0a", b"s\0c"]
    assert store.get_many(keys) == [store.get(key) for key in keys] == [b"3", None, b"1", b"3"]
    assert store.get_many([]) == []
    store.close()
    assert store.get_many(keys) == [None] * 4


def test_a_scan_stands_as_it_began(tmp_path: Path) -> None:
    """What is written while a scan is read does not change what it gives."""
    written(tmp_path)
    store = opened(tmp_path)
    scanned = store.scan(b"s\0", b"s\1")
    store.apply([(b"s\0a", None), (b"s\0b", b"9")], {"log": 9})
    assert list(scanned) == [(b"s\0a", b"1"), (b"s\0c", b"3")]
    store.close()
