r"""
A task's local store: RocksDB in a folder of its own, one write batch per committed batch.

Every write batch carries the entries, the changelog offsets that they reach to and the wall time, so
whatever a crash leaves behind is consistent and a restart restores the tail only. The changelog is
the truth: a store that is too old, of another cluster, application or state version, or corrupt, is
wiped and restored in full.
"""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
from rocksdict import Options, Rdict, WriteBatch

from pipeline.errors import BrokerError

__all__ = ["LocalStore", "Origin", "StoreError"]

_META = b"\0meta"

#: Half of the changelogs' ``delete.retention.ms``: an older store may have missed tombstones.
MAX_AGE_S = 7 * 24 * 3600

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
    """The local copy cannot be used; ``LocalStore.wipe`` and restoring from the changelog mend it."""


class LocalStore:
    """
    The committed entries of one task; implements `pipeline.runtime.state.Backend`.

    Nothing is in it before ``open``. ``offsets`` is changelog topic -> next offset, as far as the
    entries reach.
    """

    def __init__(self, folder: Path, origin: Origin) -> None:
        self.offsets: dict[str, int] = {}
        self._folder = folder
        self._origin = origin
        self._db: Any = None

    @property
    def size_bytes(self) -> int:
        """How large it is on disk and in what is not written there yet; 0 where it is not open."""
        if self._db is None:
            return 0
        sizes = (self._db.property_int_value(name) for name in _SIZES)
        return sum(size or 0 for size in sizes)

    def open(self) -> None:
        """
        Take the folder and what it holds; nothing if that is done.

        Raises:
            BrokerError: another process holds the folder; try again later.
        """
        if self._db is None:
            self._db = self._opened()
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
            raise _damaged(error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """
        The values under *keys*, in their order; one call for all costs less than one ``get`` for each.

        Raises:
            StoreError: the local copy is damaged.
        """
        if self._db is None:
            return [None] * len(keys)
        with _damage():
            values: list[bytes | None] = self._db.get(list(keys))
        return values

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """
        All entries with ``start <= key < end`` in key order, as they stand at this call.

        Raises:
            StoreError: the local copy is damaged.
        """
        if self._db is None:
            return iter(())
        with _damage():
            return _until(self._db.items(from_key=start), end)

    def apply(self, entries: Iterable[tuple[bytes, bytes | None]], offsets: Mapping[str, int]) -> None:
        """
        Write *entries* (None deletes) and the changelog *offsets* that they reach to, at once.

        Raises:
            StoreError: nothing was written.
        """
        batch = WriteBatch(raw_mode=True)
        for key, value in entries:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        reached = {**self.offsets, **offsets}
        batch.put(_META, msgspec.msgpack.encode(_Meta(self._origin, time.time(), reached)))
        with _damage():
            self._db.write(batch)
        self.offsets = reached

    def wipe(self, reason: str) -> None:
        """Discard everything, because of *reason*; the store stays open."""
        _log.warning("store.wiped", stage=self._origin.stage, partition=self._origin.partition, reason=reason)
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._db = self._opened()
        self.offsets = {}

    def close(self) -> None:
        """Release the folder; what is read afterwards is empty."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            return Rdict(str(self._folder), options=_options())
        except Exception as error:
            if "lock" in str(error).lower():
                raise BrokerError(f"store {self._folder} is in use by another process") from error
            _log.warning("store.discarded", stage=self._origin.stage, error=str(error)[:200])
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            return Rdict(str(self._folder), options=_options())

    def _kept_offsets(self) -> dict[str, int]:
        try:
            kept = self.get(_META)
            if kept is None:
                return {} if self._is_empty() else self._worthless("without its offsets")
            meta = msgspec.msgpack.decode(kept, type=_Meta)
        except (StoreError, msgspec.DecodeError):
            return self._worthless("unreadable")
        if meta.origin != self._origin:
            return self._worthless("of another cluster, application or state version")
        if time.time() - meta.written_at_s > MAX_AGE_S:
            return self._worthless("too old")
        return dict(meta.offsets)

    def _is_empty(self) -> bool:
        return next(self.scan(b"", b"\xff"), None) is None

    def _worthless(self, reason: str) -> dict[str, int]:
        self.wipe(reason)
        return {}


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what RocksDB raises, which has no common type, into `StoreError`."""
    try:
        yield
    except Exception as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> StoreError:
    return StoreError(f"the local store failed: {str(error)[:200]}")


def _until(items: Iterator[tuple[bytes, bytes]], end: bytes) -> Iterator[tuple[bytes, bytes]]:
    with _damage():
        for key, value in items:
            if key >= end:
                return
            yield key, value


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(16 * 1024 * 1024)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(1)
    options.set_max_open_files(256)
    return options
