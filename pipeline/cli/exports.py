"""What `pipeline topics export` writes: the contract in the formats that other tools read."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import final

import msgspec

from pipeline.checked_yaml import did_you_mean
from pipeline.contracts import access, asyncapi, odcs, strimzi
from pipeline.contracts.access import Grant
from pipeline.contracts.releases import FOLDER, releases
from pipeline.contracts.schemas import as_bytes, schemas
from pipeline.errors import ConfigError
from pipeline.settings import Settings
from pipeline.topics import Topics, load

__all__ = ["KINDS", "Asked", "Files", "write"]

#: Name of a file -> what stands in it.
Files = dict[str, bytes]


@final
class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the exports depend on beside the contract itself."""

    settings: Settings
    profile: str
    cluster: str  #: the name of Strimzi's Kafka resource
    authentication: strimzi.Authentication
    subscribers: tuple[str, ...]  #: ``team=topic,topic``


def _schemas(_: Asked) -> Files:
    return {f"{name}.json": as_bytes(schema) for name, schema in schemas().items()}


def _asyncapi(asked: Asked) -> Files:
    topics = load()
    made = asyncapi.document(topics, topics.profile(asked.profile), _version())
    return {"asyncapi.json": as_bytes(made)}


def _odcs(asked: Asked) -> Files:
    topics, server = load(), asked.settings.kafka.bootstrap_servers or "localhost:9092"
    public = [topic for topic in topics.values() if topic.visibility == "public"]
    return {
        f"{topic.name}.odcs.yaml": odcs.as_yaml(
            odcs.contract(topic, topics.service, _version(), server)
        ).encode()
        for topic in public
    }


def _acls(asked: Asked) -> Files:
    grants = _grants(asked)
    return {
        "acls.sh": access.as_script(grants).encode(),
        "acls.json": msgspec.json.format(msgspec.json.encode(access.as_plain(grants)), indent=2),
    }


def _strimzi(asked: Asked) -> Files:
    from pipeline.cli.cluster import wanted_topics  # noqa: PLC0415 - the others need no stage

    settings = asked.settings.model_copy(update={"profile": asked.profile})
    made = [
        strimzi.topic(
            topic.name,
            cluster=asked.cluster,
            partitions=topic.partitions,
            replicas=topic.replication,
            configs=topic.configs,
        )
        for topic in wanted_topics(settings)
    ]
    users = strimzi.users(_grants(asked), cluster=asked.cluster, authentication=asked.authentication)
    return {"topics.yaml": strimzi.as_yaml(made).encode(), "users.yaml": strimzi.as_yaml(users).encode()}


#: What can be exported -> what makes its files.
KINDS: dict[str, Callable[[Asked], Files]] = {
    "schemas": _schemas,
    "asyncapi": _asyncapi,
    "strimzi": _strimzi,
    "acls": _acls,
    "odcs": _odcs,
}


def _version() -> str:
    """The contract's last release."""
    return releases(FOLDER)[-1].version


def _grants(asked: Asked) -> tuple[Grant, ...]:
    from pipeline import topology  # noqa: PLC0415
    from pipeline.identity import Identity  # noqa: PLC0415
    from pipeline.runtime.access import of_pipeline  # noqa: PLC0415

    topics, settings = load(), asked.settings
    units = topology.units(settings, Identity(b""))
    return (*of_pipeline(units, topics, settings.application_id), *_subscribers(topics, asked.subscribers))


def _subscribers(topics: Topics, given: Iterable[str]) -> list[Grant]:
    """What the teams of *given*, ``team=topic,topic``, need."""
    found: list[Grant] = []
    for each in given:
        team, _, names = each.partition("=")
        if not team or not names:
            raise ConfigError(f"--subscriber {each}: is none; allowed: TEAM=TOPIC or TEAM=TOPIC,TOPIC")
        public = {name: topic for name, topic in topics.items() if topic.visibility == "public"}
        for name in names.split(","):
            if name not in public:
                guess = did_you_mean(name, public)
                raise ConfigError(f"--subscriber {each}: no public topic {name!r}{guess}")
        found += access.of_subscriber(team, names.split(","))
    return found


def write(files: Files, folder: Path) -> None:
    """Write *files* into *folder*, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
