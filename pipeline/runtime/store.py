r"""
A task's local store: RocksDB in a folder of its own, one write batch per committed batch.

Every write batch carries the entries, the changelog offsets that they reach to and the wall time, so
whatever a crash leaves behind is consistent and a restart restores the tail only. The changelog is
the truth: a store that is too old, of another cluster, application or state version, or corrupt, is
wiped and restored in full.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog
from rocksdict import Options, Rdict, WriteBatch

from pipeline.errors import BrokerError

__all__ = ["LocalStore", "Origin"]

_META = b"\0meta"

#: Half of the changelogs' ``delete.retention.ms``: an older store may have missed tombstones.
MAX_AGE_S = 7 * 24 * 3600

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


class LocalStore:
    """
    The committed entries of one task; implements `pipeline.runtime.state.Backend`.

    ``offsets`` is changelog topic -> next offset, as far as the entries reach.
    """

    def __init__(self, folder: Path, origin: Origin) -> None:
        self._folder = folder
        self._origin = origin
        self._db = self._opened()
        self.offsets: dict[str, int] = self._kept_offsets()

    def get(self, key: bytes) -> bytes | None:
        """The value under *key*."""
        value: bytes | None = self._db.get(key)
        return value

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All entries with ``start <= key < end`` in key order."""
        for key, value in self._db.items(from_key=start):
            if key >= end:
                return
            yield key, value

    def apply(self, entries: Iterator[tuple[bytes, bytes | None]], offsets: Mapping[str, int]) -> None:
        """Write *entries* (None deletes) and the changelog *offsets* that they reach to, at once."""
        batch = WriteBatch(raw_mode=True)
        for key, value in entries:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self.offsets.update(offsets)
        batch.put(_META, msgspec.msgpack.encode(_Meta(self._origin, time.time(), self.offsets)))
        self._db.write(batch)

    def wipe(self, reason: str) -> None:
        """Discard everything, because of *reason*."""
        _log.warning("store.wiped", stage=self._origin.stage, partition=self._origin.partition, reason=reason)
        self._db.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._db = self._opened()
        self.offsets = {}

    def close(self) -> None:
        """Release the folder."""
        self._db.close()

    def _opened(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            return Rdict(str(self._folder), options=_options())
        except Exception as error:
            if "lock" in str(error).lower():
                raise BrokerError(f"store {self._folder.name} is in use by another process") from error
            _log.warning("store.discarded", stage=self._origin.stage, error=str(error)[:200])
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            return Rdict(str(self._folder), options=_options())

    def _kept_offsets(self) -> dict[str, int]:
        kept = self._db.get(_META)
        if kept is None:
            return {}
        try:
            meta = msgspec.msgpack.decode(kept, type=_Meta)
        except msgspec.DecodeError:
            return self._worthless("unreadable")
        if meta.origin != self._origin:
            return self._worthless("of another cluster, application or state version")
        if time.time() - meta.written_at_s > MAX_AGE_S:
            return self._worthless("too old")
        return dict(meta.offsets)

    def _worthless(self, reason: str) -> dict[str, int]:
        self.wipe(reason)
        return {}


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(16 * 1024 * 1024)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(1)
    options.set_max_open_files(256)
    return options
