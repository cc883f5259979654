"""
The contract as it was released, and as it is: a release is a folder here, ``<version>/``.

It holds the schema of every type, ``<ce_type>.json``, and ``topics.json``, what each topic promises. It
is part of the package and never changes once others may have built on it.

- ``current()``: the contract that this version of the code keeps
- ``releases()``: those that were released, oldest first
- ``breaches(current(), releases())``: what of them is broken
- ``save(contract, folder)``: writes one
"""

import re
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import orjson

from pipeline.contracts import compatibility, topic_rules
from pipeline.contracts.breaches import Breach, gathered
from pipeline.contracts.schemas import Schema, as_bytes, schemas
from pipeline.contracts.topic_rules import Promise, of_topic
from pipeline.errors import ConfigError
from pipeline.topics import Topics, load

__all__ = ["FOLDER", "Contract", "breaches", "current", "releases", "save", "version_of"]

FOLDER = Path(__file__).parent
_TOPICS = "topics.json"
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """All that readers of the topics build on."""

    version: str  #: empty for what is not released
    schemas: dict[str, Schema]  #: ``ce_type`` -> schema
    topics: dict[str, Promise]


def version_of(text: str) -> tuple[int, ...]:
    """
    The numbers of the version *text*, such as ``1.4.0``.

    Raises:
        ConfigError: it is none.
    """
    found = _VERSION.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is no version; allowed: three numbers, such as 1.4.0")
    return tuple(map(int, found.groups()))


def current(topics: Topics | None = None) -> Contract:
    """The contract that the types and *topics*, by default those of topics.yaml, make."""
    promises = {name: of_topic(topic) for name, topic in (topics or load()).items()}
    return Contract(version="", schemas=schemas(), topics=promises)


def releases(folder: Path = FOLDER) -> tuple[Contract, ...]:
    """The contracts in *folder*, oldest first."""
    names = [path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir()]
    return tuple(_read(folder / name) for name in sorted(names, key=version_of))


def save(contract: Contract, folder: Path) -> None:
    """Write *contract* into *folder*, which must be new: the same contract gives the same bytes."""
    folder.mkdir(parents=True)
    for name, schema in contract.schemas.items():
        (folder / f"{name}.json").write_bytes(as_bytes(schema))
    (folder / _TOPICS).write_bytes(as_bytes(msgspec.to_builtins(contract.topics)))


def breaches(now: Contract, released: Sequence[Contract], today: date | None = None) -> list[Breach]:
    """
    All that *now* breaks of *released*, oldest first; each breach once, with the releases it breaks.

    *today*, by default in UTC, decides whether a topic whose end was announced may be gone.
    """
    over = topic_rules.ended([each.topics for each in released], today or datetime.now(UTC).date())
    found = [(each.version, breach) for each in released for breach in _of_release(each, now, over)]
    alone = [
        *topic_rules.two_majors(now.topics),
        *topic_rules.reused([r.topics for r in released], now.topics),
    ]
    for name, schema in now.schemas.items():
        before = [each.schemas[name] for each in released if name in each.schemas]
        alone += compatibility.closed(name, schema)
        alone += compatibility.reused(name, before, schema)
    return gathered([*found, *(("", breach) for breach in alone)])


def _of_release(old: Contract, now: Contract, over: Container[str]) -> Iterable[Breach]:
    yield from topic_rules.compare(old.topics, now.topics, over)
    for name, schema in old.schemas.items():
        if name in now.schemas:
            yield from compatibility.compare(name, schema, now.schemas[name])


def _read(folder: Path) -> Contract:
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}
    topics = msgspec.json.decode(files.pop(_TOPICS), type=dict[str, Promise])
    found = {name.removesuffix(".json"): orjson.loads(content) for name, content in files.items()}
    return Contract(version=folder.name, schemas=found, topics=topics)
