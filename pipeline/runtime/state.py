r"""
A task's state as its stage sees it: committed entries below, layers of uncommitted ones above.

Keys are bytes of the form ``<store>\\0<key>``. Layers hold values as the steps wrote them; each is
encoded once, when its batch is closed. The committed backend holds the same bytes as the changelog.
Values are never changed in place, so what was decoded once is kept for the next step that reads it.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar

import msgspec

from pipeline.errors import RecordError
from pipeline.stage import Put, Store, Write

__all__ = ["MAX_ENTRY_BYTES", "Backend", "Changes", "Layers", "Memory"]

T = TypeVar("T")

#: A larger entry is refused: its changelog record would be (brokers take 1 MiB).
MAX_ENTRY_BYTES = 900 * 1024

_MISSING: Any = object()


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


class _Layer(dict[str, Any]):
    """What one batch wrote to one store: key -> value, None where deleted."""

    __slots__ = ("sorted_keys",)

    def __init__(self) -> None:
        super().__init__()
        self.sorted_keys: list[str] | None = None  # text order by code point is byte order of UTF-8

    def within(self, start: str, end: str) -> list[str]:
        """Its keys from *start* to before *end*; sorted once, so that a scan costs what it finds."""
        if self.sorted_keys is None:
            self.sorted_keys = sorted(self)
        return self.sorted_keys[bisect_left(self.sorted_keys, start) : bisect_left(self.sorted_keys, end)]


class _View:
    """One store: its layers, the newest first, over what is committed."""

    def __init__(self, store: Store[Any], backend: Backend, cached: int) -> None:
        self.name = store.name
        self.layers: list[_Layer] = []
        self.decode = _decoder(store)
        self.encode = _encoder(store)
        self._backend = backend
        self._prefix = f"{store.name}\0"
        self._cached = cached
        # The newest values known, committed or not, in two generations: what is used goes into the young
        # one, and when that is full the old one is forgotten.
        self.young: dict[str, Any] = {}
        self._old: dict[str, Any] = {}

    def found(self, key: str) -> Any:
        """The newest value of *key*, where the young generation has none."""
        for layer in self.layers:
            value = layer.get(key, _MISSING)
            if value is not _MISSING:
                return value
        value = self._old.get(key, _MISSING)
        if value is _MISSING:
            found = self._backend.get((self._prefix + key).encode())
            value = None if found is None else self.decode(found)
        if self._cached:
            self.young[key] = value
        return value

    def push(self) -> None:
        self.layers.insert(0, _Layer())
        if len(self.young) > self._cached:
            self._old, self.young = self.young, {}

    def pop(self) -> None:
        del self.layers[0]
        self.young, self._old = {}, {}

    def forget(self) -> None:
        """Drop the layers, and what is remembered."""
        self.layers.clear()
        self.young, self._old = {}, {}

    def encoded(self) -> list[tuple[bytes, bytes | None]]:
        """The newest layer in bytes."""
        encode = self.encode
        return [
            (key.encode(), None if value is None else encode(value)) for key, value in self.layers[0].items()
        ]

    def scan(self, start: str, end: str) -> Iterator[tuple[str, Any]]:
        over: dict[str, Any] = {}
        for layer in reversed(self.layers):
            if layer:
                over |= {key: layer[key] for key in layer.within(start, end)}
        prefix = self._prefix
        below = self._backend.scan((prefix + start).encode(), (prefix + end).encode())
        return self._merged(below, over) if over else self._decoded(below)

    def _decoded(self, below: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[str, Any]]:
        skip, decode = len(self._prefix.encode()), self.decode
        return ((raw[skip:].decode(), decode(value)) for raw, value in below)

    def _merged(
        self, below: Iterator[tuple[bytes, bytes]], over: dict[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        news = iter(sorted(over))
        new = next(news, None)
        for key, value in self._decoded(below):
            while new is not None and new < key:
                if over[new] is not None:
                    yield new, over[new]
                new = next(news, None)
            if key not in over:
                yield key, value
        while new is not None:
            if over[new] is not None:
                yield new, over[new]
            new = next(news, None)


class Layers:
    """
    Implements `pipeline.stage.Stores` over a backend and the layers of uncommitted batches.

    *cached* is how many values of each store are kept decoded, at most twice, and those of the last
    batches; nobody else may then write to the backend. Whoever only reads, with 0, always asks the backend.
    """

    def __init__(
        self, partition: int, stores: Iterable[Store[Any]], backend: Backend, cached: int = 0
    ) -> None:
        self.partition = partition
        self._views = {store.name: _View(store, backend, cached) for store in stores}

    def get(self, store: Store[T], key: str) -> T | None:
        """The value under *key*, the newest layer first."""
        view = self._views[store.name]
        value: T | None = view.young.get(key, _MISSING)
        return view.found(key) if value is _MISSING else value

    def scan(self, store: Store[T], start: str, end: str, limit: int = 500) -> Iterator[tuple[str, T]]:
        """At most *limit* entries with ``start <= key < end``, layers merged over the backend."""
        return islice(self._views[store.name].scan(start, end), limit)

    def push(self) -> None:
        """Begin a layer for a new batch."""
        for view in self._views.values():
            view.push()

    def pop(self) -> None:
        """Forget the newest layer."""
        for view in self._views.values():
            view.pop()

    def check(self, writes: Iterable[Write]) -> None:
        """
        Refuse *writes* that ``changes`` could not encode.

        Raises:
            RecordError: an entry would be too large.
            TypeError, ValueError, OverflowError: a value cannot be encoded.
        """
        for write in writes:
            if isinstance(write, Put):
                name = write.store.name
                _check_size(name, [(write.key.encode(), self._views[name].encode(write.value))])

    def write(self, writes: Iterable[Write]) -> None:
        """Apply *writes* to the newest layer; whether they can be encoded shows in ``changes``."""
        views = self._views
        for write in writes:
            view, key = views[write.store.name], write.key
            layer = view.layers[0]
            if layer.sorted_keys is not None and key not in layer:
                insort(layer.sorted_keys, key)
            layer[key] = view.young[key] = write.value if type(write) is Put else None

    def changes(self) -> Changes:
        """
        The newest layer, as bytes.

        Raises:
            RecordError: an entry is too large.
            TypeError, ValueError, OverflowError: a value cannot be encoded.
        """
        by_store = {name: view.encoded() for name, view in self._views.items() if view.layers[0]}
        for name, entries in by_store.items():
            _check_size(name, entries)
        return Changes(by_store)

    def committed(self) -> None:
        """The oldest layer now stands in the backend."""
        for view in self._views.values():
            view.layers.pop()

    def discard(self) -> None:
        """Forget everything uncommitted."""
        for view in self._views.values():
            view.forget()


def _check_size(name: str, entries: list[tuple[bytes, bytes | None]]) -> None:
    for key, value in entries:
        if value is not None and len(key) + len(value) > MAX_ENTRY_BYTES:
            raise RecordError("too-large", f"a value of {len(value)} bytes for store {name}")


def _decoder(store: Store[Any]) -> Callable[[bytes], Any]:
    if store.changelog:
        return msgspec.json.Decoder(store.type).decode
    return msgspec.msgpack.Decoder(store.type).decode


def _encoder(store: Store[Any]) -> Callable[[Any], bytes]:
    # A store behind a public name has the JSON that its topic promises.
    if store.changelog:
        return msgspec.json.Encoder(order="deterministic").encode
    return msgspec.msgpack.Encoder().encode
