r"""
A task's local store: RocksDB in a folder of its own, one write batch per committed batch.

Every write batch carries the entries, the changelog offsets that they reach to and the wall time, so
whatever a crash leaves behind is consistent and a restart restores the tail only. The changelog is
the truth: a store that is too old, of another cluster, application or state version, or corrupt, is
wiped and restored in full.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DbClosedError,
    DBCompressionType,
    MemtableFactory,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from pipeline.errors import BrokerError

__all__ = ["DiskError", "LocalStore", "Origin", "StoreError", "off_loop"]

T = TypeVar("T")

_META = b"\0meta"

#: Half of the changelogs' ``delete.retention.ms``: an older store may have missed tombstones.
MAX_AGE_S = 7 * 24 * 3600

#: Memory of all stores of a process together, in MB, unless the settings say otherwise.
MEMORY_MB = 96

#: Bytes after which a store's written entries go from memory to a file.
_WRITE_BUFFER_BYTES = 16 * 1024 * 1024

#: Memory that a store takes at once for what is written to it: small, since a process has hundreds.
_ARENA_BYTES = 64 * 1024

#: Disk that a store takes at once for its logs.
_PREALLOCATED_BYTES = 256 * 1024

#: Files not yet merged at which writes are slowed down, which would hold up the event loop: merging
#: catches up after a large restore.
_SLOW_FILES = 64

#: A key that is not there is known by so many bits, without reading a block.
_FILTER_BITS = 10

#: RocksDB's properties that add up to the size of a store, in bytes.
_SIZES = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")

_log = structlog.get_logger(__name__)


class Origin(msgspec.Struct, frozen=True):
    """What a store belongs to; any difference makes it worthless."""

    cluster_id: str
    application_id: str
    stage: str
    partition: int
    state_version: int


class _Meta(msgspec.Struct, frozen=True):
    origin: Origin
    written_at_s: float
    offsets: dict[str, int]


class StoreError(BrokerError):
    """The local copy cannot be used; ``LocalStore.condemn`` and restoring from the changelog mend it."""


class DiskError(BrokerError):
    """The folder of the stores is full or cannot be written; what is in it is as good as before."""


async def off_loop(work: Callable[[], T]) -> T:
    """Do *work* in a thread; also when cancelled, return only when it has ended."""
    job = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(job)
    finally:
        await asyncio.wait((job,))


class LocalStore:
    """
    The committed entries of one task; implements `pipeline.runtime.state.Backend`.

    Nothing is in it before ``open``. ``offsets`` is changelog topic -> next offset, as far as the
    entries reach. ``open``, ``wipe``, ``begin_loading``, ``end_loading`` and ``close`` can take
    long: do them `off_loop`.
    *memory_mb* is shared by all stores of the process that name the same number.
    """

    def __init__(self, folder: Path, origin: Origin, memory_mb: int = MEMORY_MB) -> None:
        self.offsets: dict[str, int] = {}
        self.origin = origin
        self._folder = folder
        self._memory_mb = memory_mb
        self._db: Any = None
        self._condemned = ""  # why everything is to be discarded
        self._loading = False  # between begin_loading and end_loading
        self._unsure = False  # a write failed: RocksDB may refuse all others until it is opened again

    @property
    def size_bytes(self) -> int:
        """How large it is on disk and in what is not written there yet; 0 where it is not open."""
        if self._db is None:
            return 0
        sizes = (self._db.property_int_value(name) for name in _SIZES)
        return sum(size or 0 for size in sizes)

    @property
    def kept(self) -> bool:
        """Whether there is anything on the disk."""
        return self._folder.exists()

    def open(self) -> None:
        """
        Take the folder and what it holds; nothing if that is done.

        Raises:
            DiskError: the folder cannot be written.
            BrokerError: another process holds the folder; try again later.
        """
        if self._condemned:
            self.wipe(self._condemned)
        if self._unsure:
            self.close()
        if self._db is None:
            self._db = self._opened()
            self._unsure = False
            self.offsets = self._kept_offsets()

    def get(self, key: bytes) -> bytes | None:
        """
        The value under *key*.

        Raises:
            StoreError: the local copy is damaged.
        """
        if self._db is None:
            return None
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._cause(error) from error
        return value

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """
        All entries with ``start <= key < end`` in key order, as they stand at this call.

        Raises:
            StoreError: the local copy is damaged.
        """
        if self._db is None:
            return iter(())
        with self._mapped():
            found = self._db.iter()
            found.seek(start)
        return self._until(found, end)

    def apply(self, entries: Iterable[tuple[bytes, bytes | None]], offsets: Mapping[str, int]) -> None:
        """
        Write *entries* (None deletes) and the changelog *offsets* that they reach to, at once.

        Raises:
            StoreError: nothing was written.
            DiskError: likewise; the folder is full or cannot be written.
        """
        if self._loading:
            self.end_loading()  # what is logged may not stand on what is not
        self._write(entries, offsets, None)

    def begin_loading(self) -> None:
        """Make ready for many calls of ``load``; reads are slow before ``end_loading``."""
        if self._loading:
            return
        self.close()
        self._loading = True
        self._db = self._rocksdb()

    def load(self, entries: Iterable[tuple[bytes, bytes | None]], offsets: Mapping[str, int]) -> bool:
        """
        As ``apply``, but faster, without ever waiting for the disk, and without a log: after a crash the
        store is what it was at some call before.

        Returns:
            False if the disk does not keep up, and nothing was written: try again a moment later.
        """
        try:
            self._write(entries, offsets, _LOADING)
        except StoreError as error:
            if _is_stalled(error):
                return False
            raise
        return True

    def end_loading(self) -> None:
        """
        Bring what was loaded to the disk, and make ready for reading.

        Raises:
            StoreError, DiskError: it could not be brought there.
        """
        with self._mapped():
            self._db.flush()
        self.close()
        self._db = self._rocksdb()

    def condemn(self, reason: str) -> None:
        """Discard everything at the next ``open``, because of *reason*."""
        self._condemned = reason

    def wipe(self, reason: str) -> None:
        """Discard everything, because of *reason*; the store stays open."""
        _log.warning("store.wiped", stage=self.origin.stage, partition=self.origin.partition, reason=reason)
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._db = self._opened()
        self._condemned, self._unsure, self.offsets = "", False, {}

    def close(self) -> None:
        """Release the folder; what is read afterwards is empty."""
        db, self._db = self._db, None
        if db is None:
            return
        try:
            db.close()
        except Exception as error:  # noqa: BLE001 - a full disk: what was not written is in the changelog
            _log.warning("store.closed_badly", stage=self.origin.stage, error=str(self._cause(error)))
        self._loading = False

    def _write(
        self,
        entries: Iterable[tuple[bytes, bytes | None]],
        offsets: Mapping[str, int],
        options: WriteOptions | None,
    ) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in entries:
            if value is None:
                delete(key)
            else:
                put(key, value)
        reached = {**self.offsets, **offsets}
        put(_META, msgspec.msgpack.encode(_Meta(self.origin, time.time(), reached)))
        try:
            self._db.write(batch, options)
        except Exception as error:
            cause = self._cause(error)
            self._unsure = not _is_stalled(cause)
            raise cause from error
        self.offsets = reached

    def _opened(self) -> Any:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._disk_error(error) from error
        try:
            return self._rocksdb()
        except StoreError as error:
            _log.warning(
                "store.discarded", stage=self.origin.stage, partition=self.origin.partition, reason=str(error)
            )
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._rocksdb()

    def _rocksdb(self) -> Any:
        options = _options(self._memory_mb, loading=self._loading)
        with self._mapped():
            return Rdict(str(self._folder), options=options)

    def _kept_offsets(self) -> dict[str, int]:
        try:
            kept = self.get(_META)
            if kept is None:
                return {} if self._is_empty() else self._worthless("without its offsets")
            meta = msgspec.msgpack.decode(kept, type=_Meta)
        except (StoreError, msgspec.DecodeError):
            return self._worthless("unreadable")
        if meta.origin != self.origin:
            return self._worthless("of another cluster, application or state version")
        if time.time() - meta.written_at_s > MAX_AGE_S:
            return self._worthless("too old")
        return dict(meta.offsets)

    def _is_empty(self) -> bool:
        return next(self.scan(b"", b"\xff"), None) is None

    def _worthless(self, reason: str) -> dict[str, int]:
        self.wipe(reason)
        return {}

    def _until(self, found: Any, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        valid, key_of, value_of, move = found.valid, found.key, found.value, found.next
        with self._mapped():
            while valid():
                key = key_of()
                if key >= end:
                    return
                yield key, value_of()
                move()
            found.status()  # it also ends at a block that cannot be read

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn what RocksDB raises, which has no common type, into errors of ours."""
        try:
            yield
        except Exception as error:
            raise self._cause(error) from error

    def _cause(self, error: Exception) -> BrokerError:
        """What *error* of RocksDB's amounts to; a bug of ours is no damage of the store's, and raised."""
        if type(error) is not Exception and not isinstance(error, DbClosedError):
            raise error
        text = str(error)
        if not text.startswith("IO error") or "No such file" in text:
            return StoreError(f"the local store failed: {text[:200]}")
        if "/LOCK" in text:
            return BrokerError(f"store {self._folder} is in use by another process")
        return self._disk_error(error)

    def _disk_error(self, error: Exception) -> DiskError:
        return DiskError(
            f"cannot write to {self._folder}: {str(error)[:200]};"
            " make room there, or set runtime.state_dir to another folder"
        )


def _is_stalled(error: Exception) -> bool:
    """Whether RocksDB would have waited for the disk, and was told not to."""
    return "Write stall" in str(error)


def _loading() -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[method-assign,assignment] # an attribute, whatever its stub says
    options.no_slowdown = True
    return options


_LOADING = _loading()


@cache
def _memory(megabytes: int) -> tuple[Cache, WriteBufferManager]:
    """What all stores share: blocks read, and of those at most the half for what is to be written."""
    size = megabytes * 1024 * 1024
    blocks = Cache(size)
    return blocks, WriteBufferManager.new_write_buffer_manager_with_cache(size // 2, False, blocks)


def _options(memory_mb: int, *, loading: bool) -> Options:
    blocks, written = _memory(memory_mb)
    tables = BlockBasedOptions()
    tables.set_block_cache(blocks)
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_bloom_filter(_FILTER_BITS, False)
    tables.set_format_version(5)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(tables)
    options.set_write_buffer_manager(written)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_arena_block_size(_ARENA_BYTES)
    options.set_max_write_buffer_number(4)
    options.set_level_zero_slowdown_writes_trigger(_SLOW_FILES)
    options.set_level_zero_stop_writes_trigger(2 * _SLOW_FILES)
    options.set_max_total_wal_size(_PREALLOCATED_BYTES)
    options.set_manifest_preallocation_size(_PREALLOCATED_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(1)
    options.set_stats_dump_period_sec(0)
    options.set_skip_stats_update_on_db_open(True)
    options.set_max_open_files(64)
    if loading:  # entries are sorted when they go to a file, in a thread, instead of one by one
        options.set_memtable_factory(MemtableFactory.vector())
        options.set_allow_concurrent_memtable_write(False)
    return options
