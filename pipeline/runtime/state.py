r"""
A task's state as its stage sees it: committed entries below, layers of uncommitted ones above.

Keys are bytes of the form ``<store>\\0<key>``. Values are kept decoded in the layers and encoded
once, when a batch is closed; the committed backend holds the same bytes as the changelog.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import msgspec

from pipeline.stage import Delete, Put, Store, Write

__all__ = ["Backend", "Changes", "Layers", "Memory"]

T = TypeVar("T")

#: Written entries of one batch: store name -> key -> value, None when deleted.
Layer = dict[str, dict[str, Any]]


class Backend(Protocol):
    """Committed entries."""

    def get(self, key: bytes) -> bytes | None:
        """The value under *key*."""
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

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All entries with ``start <= key < end`` in key order."""
        keys = sorted(key for key in self.entries if start <= key < end)
        return ((key, self.entries[key]) for key in keys)

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
            entries = layer.get(store.name)
            if entries is not None and key in entries:
                value: T | None = entries[key]
                return value
        found = self.backend.get(f"{store.name}\0{key}".encode())
        return None if found is None else self._decoders[store.name](found)

    def scan(self, store: Store[T], start: str, end: str, limit: int = 500) -> Iterator[tuple[str, T]]:
        """At most *limit* entries with ``start <= key < end``, layers merged over the backend."""
        over = self._over(store.name, start, end)
        entries = self._merged(store.name, start, end, over)
        for _, entry in zip(range(limit), entries, strict=False):
            yield entry

    def push(self) -> None:
        """Begin a layer for a new batch."""
        self._layers.append({})

    def write(self, writes: Iterable[Write]) -> None:
        """Apply *writes* to the newest layer."""
        layer = self._layers[-1]
        for write in writes:
            entries = layer.setdefault(write.store.name, {})
            match write:
                case Put(_, key, value):
                    entries[key] = value
                case Delete(_, key):
                    entries[key] = None

    def changes(self) -> Changes:
        """The newest layer, encoded."""
        return Changes(
            {
                name: [
                    (key.encode(), None if value is None else self._encoders[name](value))
                    for key, value in entries.items()
                ]
                for name, entries in self._layers[-1].items()
            }
        )

    def committed(self) -> None:
        """The oldest layer now stands in the backend."""
        del self._layers[0]

    def discard(self) -> None:
        """Forget everything uncommitted."""
        self._layers.clear()

    def _over(self, name: str, start: str, end: str) -> dict[str, Any]:
        over: dict[str, Any] = {}
        for layer in self._layers:
            over |= {key: value for key, value in layer.get(name, {}).items() if start <= key < end}
        return over

    def _merged(self, name: str, start: str, end: str, over: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        decode = self._decoders[name]
        skip = len(name.encode()) + 1
        news = iter(sorted(over, key=str.encode))
        new = next(news, None)
        for raw, value in self.backend.scan(f"{name}\0{start}".encode(), f"{name}\0{end}".encode()):
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
