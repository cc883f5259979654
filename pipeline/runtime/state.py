r"""
A task's state as its stage sees it: committed entries below, layers of uncommitted ones above.

Keys are bytes of the form ``<store>\\0<key>``. A value is encoded when it is written, so that one that
cannot be encoded is known while its record is; the layers keep it decoded too, for the steps that read
it again. The committed backend holds the same bytes as the changelog.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from pipeline.stage import Delete, Put, Store, Write

__all__ = ["Backend", "Changes", "Entry", "Layers", "Memory"]

T = TypeVar("T")


class Entry(NamedTuple):
    """A written value and its bytes; both None when deleted."""

    value: Any
    encoded: bytes | None


class _Written:
    """What one batch wrote to one store; keys in order, so that a scan costs what it finds."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._keys: list[str] = []  # text order by code point is byte order of UTF-8

    def put(self, key: str, entry: Entry) -> None:
        if key not in self.entries:
            insort(self._keys, key)
        self.entries[key] = entry

    def within(self, start: str, end: str) -> list[str]:
        return self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]


#: What one batch wrote, by store name.
Layer = dict[str, _Written]


class Backend(Protocol):
    """Committed entries."""

    def get(self, key: bytes) -> bytes | None:
        """The value under *key*."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under *keys*, in their order."""
        ...

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All entries with ``start <= key < end`` in key order."""
        ...


class Memory:
    """A backend in memory, for the driver and for tests."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value under *key*."""
        return self.entries.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under *keys*, in their order."""
        return [self.entries.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All entries with ``start <= key < end`` in key order."""
        return iter(sorted((key, value) for key, value in self.entries.items() if start <= key < end))

    def apply(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Set and, where the value is None, delete."""
        for key, value in entries:
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value


class Changes:
    """What one batch wrote: for the changelogs by store, and for the backend."""

    def __init__(self, by_store: dict[str, list[tuple[bytes, bytes | None]]]) -> None:
        self.by_store = by_store

    def __iter__(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Each entry under its backend key."""
        for store, entries in self.by_store.items():
            prefix = store.encode() + b"\0"
            for key, value in entries:
                yield prefix + key, value


class Layers:
    """Implements `pipeline.stage.Stores` over a backend and the layers of uncommitted batches."""

    def __init__(self, partition: int, stores: Iterable[Store[Any]], backend: Backend) -> None:
        self.partition = partition
        self.backend = backend
        self._layers: list[Layer] = []
        self._decoders = {store.name: _decoder(store) for store in stores}
        self._encoders = {store.name: _encoder(store) for store in stores}

    def get(self, store: Store[T], key: str) -> T | None:
        """The value under *key*, the newest layer first."""
        for layer in reversed(self._layers):
            written = layer.get(store.name)
            if written is not None and (entry := written.entries.get(key)) is not None:
                value: T | None = entry.value
                return value
        found = self.backend.get(f"{store.name}\0{key}".encode())
        return None if found is None else self._decoders[store.name](found)

    def scan(self, store: Store[T], start: str, end: str, limit: int = 500) -> Iterator[tuple[str, T]]:
        """At most *limit* entries with ``start <= key < end``, layers merged over the backend."""
        over = self._over(store.name, start, end)
        below = self.backend.scan(f"{store.name}\0{start}".encode(), f"{store.name}\0{end}".encode())
        return islice(self._merged(store.name, below, over), limit)

    def push(self) -> None:
        """Begin a layer for a new batch."""
        self._layers.append({})

    def encoded(self, writes: Iterable[Write]) -> list[tuple[str, str, Entry]]:
        """
        *writes* as store name, key and entry; nothing is written.

        Raises:
            TypeError, ValueError, OverflowError: a value cannot be encoded.
        """
        return [(write.store.name, write.key, self._entry(write)) for write in writes]

    def write(self, writes: Iterable[Write]) -> None:
        """Apply *writes* to the newest layer: all, or none where one cannot be encoded."""
        self.put(self.encoded(writes))

    def put(self, entries: Sequence[tuple[str, str, Entry]]) -> None:
        """Put *entries*, as ``encoded`` made them, into the newest layer."""
        layer = self._layers[-1]
        for name, key, entry in entries:
            written = layer.get(name)
            if written is None:
                written = layer[name] = _Written()
            written.put(key, entry)

    def changes(self) -> Changes:
        """The newest layer, as bytes."""
        return Changes(
            {
                name: [(key.encode(), entry.encoded) for key, entry in written.entries.items()]
                for name, written in self._layers[-1].items()
            }
        )

    def committed(self) -> None:
        """The oldest layer now stands in the backend."""
        del self._layers[0]

    def discard(self) -> None:
        """Forget everything uncommitted."""
        self._layers.clear()

    def _entry(self, write: Write) -> Entry:
        match write:
            case Put(store, _, value):
                return Entry(value, self._encoders[store.name](value))
            case Delete():
                return Entry(None, None)

    def _over(self, name: str, start: str, end: str) -> dict[str, Any]:
        over: dict[str, Any] = {}
        for layer in self._layers:
            written = layer.get(name)
            if written is not None:
                over |= {key: written.entries[key].value for key in written.within(start, end)}
        return over

    def _merged(
        self, name: str, below: Iterator[tuple[bytes, bytes]], over: dict[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        decode = self._decoders[name]
        skip = len(name.encode()) + 1
        news = iter(sorted(over))
        new = next(news, None)
        for raw, value in below:
            key = raw[skip:].decode()
            while new is not None and new.encode() < raw[skip:]:
                if over[new] is not None:
                    yield new, over[new]
                new = next(news, None)
            if key not in over:
                yield key, decode(value)
        while new is not None:
            if over[new] is not None:
                yield new, over[new]
            new = next(news, None)


def _decoder(store: Store[Any]) -> Any:
    if store.changelog:
        return msgspec.json.Decoder(store.type).decode
    return msgspec.msgpack.Decoder(store.type).decode


def _encoder(store: Store[Any]) -> Any:
    # A store behind a public name has the JSON that its topic promises.
    return (
        msgspec.json.Encoder(order="deterministic") if store.changelog else msgspec.msgpack.Encoder()
    ).encode
