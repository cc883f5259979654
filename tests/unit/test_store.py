"""A task's local store: whatever is worthless is wiped, whatever is kept is whole."""

import asyncio
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from pipeline.errors import BrokerError
from pipeline.runtime.store import MAX_AGE_S, DiskError, LocalStore, Origin, StoreError, off_loop

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


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond *size*, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_costs_nothing(tmp_path: Path) -> None:
    """Entries and offsets are written at once or not at all; with room again the store is as before."""
    written(tmp_path)
    store = opened(tmp_path)
    with file_limit(100_000), pytest.raises(DiskError, match=r"File too large.* make room there"):
        store.apply([(b"s\0%d" % number, b"x" * 1_000) for number in range(1_000)], {"log": 8})
    assert store.offsets == {"log": 7}
    store.open()
    assert (content(store), store.offsets) == ([(b"s\0a", b"1"), (b"s\0c", b"3")], {"log": 7})
    store.apply([(b"s\0a", b"9")], {"log": 8})
    assert store.get(b"s\0a") == b"9"
    store.close()


def test_a_store_closes_on_a_full_disk(tmp_path: Path) -> None:
    """What cannot be brought to the disk is left to the changelog, and the folder is free again."""
    written(tmp_path)
    store = opened(tmp_path)
    store.begin_loading()
    assert store.load([(b"s\0%d" % number, os.urandom(1_000)) for number in range(1_000)], {"log": 8})
    with file_limit(100_000), capture_logs() as logs:
        store.close()
    assert [each["event"] for each in logs] == ["store.closed_badly"]
    again = opened(tmp_path)
    assert (content(again), again.offsets) == ([(b"s\0a", b"1"), (b"s\0c", b"3")], {"log": 7})
    again.close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The error names the folder and the setting, and nothing is removed."""
    (tmp_path / "file").touch()
    store = LocalStore(tmp_path / "file" / "store", ORIGIN)
    with pytest.raises(DiskError, match=r"file/store.*runtime\.state_dir"):
        store.open()
    assert (tmp_path / "file").exists()


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


@pytest.mark.parametrize("file", ["CURRENT", "MANIFEST-*", "*.sst"])
@pytest.mark.parametrize("damage", ["nonsense", "missing"])
def test_a_corrupt_store_is_discarded(tmp_path: Path, file: str, damage: str) -> None:
    """What RocksDB cannot open is begun anew, said in the log, and can be written to."""
    written(tmp_path)
    for each in list(tmp_path.glob(file)):
        if damage == "missing":
            each.unlink()
        else:
            each.write_bytes(b"nonsense")
    with capture_logs() as logs:
        store = opened(tmp_path)
    assert [(each["event"], each["stage"]) for each in logs] == [("store.discarded", "enrich")]
    store.apply([(b"s\0z", b"1")], {"log": 1})
    assert (content(store), store.offsets) == ([(b"s\0z", b"1")], {"log": 1})
    store.close()


def with_a_spoilt_block(folder: Path) -> LocalStore:
    """A store of 20,000 entries that opens, with some bytes in the middle of its only table flipped."""
    store = opened(folder)
    store.apply([(b"s\0%05d" % number, b"%d" % number * 9) for number in range(20_000)], {"log": 1})
    store.close()
    (table,) = folder.glob("*.sst")
    data = bytearray(table.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
    table.write_bytes(data)
    return opened(folder)


def test_a_scan_never_ends_silently_at_a_spoilt_block(tmp_path: Path) -> None:
    """Half of the entries would look like all of them."""
    store = with_a_spoilt_block(tmp_path)
    with pytest.raises(StoreError, match="checksum mismatch"):
        content(store)
    store.close()


def test_a_spoilt_block_is_told_by_every_way_to_read(tmp_path: Path) -> None:
    """No value is made up, and none is taken for missing."""
    store = with_a_spoilt_block(tmp_path)
    keys = [b"s\0%05d" % number for number in range(20_000)]
    with pytest.raises(StoreError, match="checksum mismatch"):
        _ = [store.get(key) for key in keys]
    store.close()


def test_a_condemned_store_is_wiped_at_its_next_opening(tmp_path: Path) -> None:
    """Until then it stays as it is; the reason is in the log."""
    written(tmp_path)
    store = opened(tmp_path)
    store.condemn("spoilt")
    assert store.get(b"s\0a") == b"1"
    with capture_logs() as logs:
        store.open()
        store.open()
    assert (content(store), store.offsets) == ([], {})
    assert [(each["event"], each["reason"]) for each in logs] == [("store.wiped", "spoilt")]
    store.close()


Writes = tuple[tuple[str, dict[str, str], int], ...]


def write_and_die(folder: Path, writes: Writes) -> None:
    """In a process of its own: call the methods of the store that *writes* names, then be killed."""
    store = opened(folder)
    for method, entries, offset in writes:
        pairs = [(b"s\0" + key.encode(), value.encode()) for key, value in entries.items()]
        getattr(store, method)(*([pairs, {"log": offset}] if entries else []))
    os.kill(os.getpid(), signal.SIGKILL)


def after_a_kill(folder: Path, *writes: tuple[str, dict[str, str], int]) -> tuple[dict[str, str], int]:
    """Entries and offset of the store in *folder* after a process was killed that had done *writes*."""
    process = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(folder, writes))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store = opened(folder)
    found = {key[2:].decode(): value.decode() for key, value in content(store)}
    store.close()
    return found, store.offsets.get("log", 0)


def test_what_was_applied_survives_a_kill(tmp_path: Path) -> None:
    """A restart has to restore nothing of what was committed here."""
    assert after_a_kill(tmp_path, ("apply", {"a": "1"}, 1)) == ({"a": "1"}, 1)


def test_what_was_loaded_is_whole_after_a_kill(tmp_path: Path) -> None:
    """Entries never stand without their offsets, nor offsets without their entries."""
    loading = [("begin_loading", {}, 0), ("load", {"a": "1"}, 1), ("end_loading", {}, 0)]
    found = after_a_kill(tmp_path, *loading, ("begin_loading", {}, 0), ("load", {"b": "2"}, 2))
    assert found == ({"a": "1"}, 1)


def test_what_is_applied_stands_on_what_was_loaded(tmp_path: Path) -> None:
    """The log has no offsets whose entries are lost by a kill."""
    loading = [("begin_loading", {}, 0), ("load", {"a": "1"}, 1)]
    found = after_a_kill(tmp_path, *loading, ("apply", {"b": "2"}, 2))
    assert found == ({"a": "1", "b": "2"}, 2)


async def test_work_off_the_loop_is_waited_for_even_when_cancelled() -> None:
    """Nobody may begin anything with a store while a thread is still at it."""
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert may_end.wait(10)
        ended.set()

    job = asyncio.create_task(off_loop(work))
    await asyncio.to_thread(begun.wait)
    job.cancel()
    asyncio.get_running_loop().call_later(0.05, may_end.set)
    with pytest.raises(asyncio.CancelledError):
        await job
    assert ended.is_set()


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


def test_a_scan_stands_as_it_began(tmp_path: Path) -> None:
    """What is written while a scan is read does not change what it gives."""
    written(tmp_path)
    store = opened(tmp_path)
    scanned = store.scan(b"s\0", b"s\1")
    store.apply([(b"s\0a", None), (b"s\0b", b"9")], {"log": 9})
    assert list(scanned) == [(b"s\0a", b"1"), (b"s\0c", b"3")]
    store.close()


def test_a_bug_of_ours_is_no_damage_of_the_store(tmp_path: Path) -> None:
    """Only what RocksDB raises condemns a store to be wiped."""
    store = opened(tmp_path)
    with pytest.raises(KeyError):
        store.get(1)  # type: ignore[arg-type]
    store.close()
