"""`pipeline topics`: what topics.yaml says, and making a cluster hold it."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
import msgspec

from pipeline.checked_yaml import did_you_mean
from pipeline.cli import catalogue, contracts
from pipeline.cli.output import print_json, print_table
from pipeline.errors import ConfigError
from pipeline.topics import Profile, Topic, Topics, load

if TYPE_CHECKING:
    from pipeline.runtime.topic_plan import Difference, Plan
    from pipeline.settings import Settings

__all__ = ["app"]

app = cyclopts.App(
    name="topics",
    help="""
    What topics.yaml says, and making a cluster hold it.

    `plan` shows how the cluster differs, `apply` changes that. Nothing is ever deleted, and a keyed
    topic keeps its number of partitions: another number is a replay under a new application id.
    """,
)
for _command in (contracts.check, contracts.export, contracts.release, catalogue.docs):
    app.command(_command)


@dataclass(frozen=True, kw_only=True)
class Target:
    """
    Which cluster is meant, and of which size.

    Parameters
    ----------
    settings
        The YAML file of settings; PIPELINE_… variables win over it.
    bootstrap_servers
        Kafka's host:port,…; default: as the settings say.
    profile
        The sizes in topics.yaml, dev or production; default: as the settings say.
    """

    settings: Path | None = None
    bootstrap_servers: str = ""
    profile: str = ""


ClusterTarget = Annotated[Target, cyclopts.Parameter(name="*")]
_DEFAULT = Target()


@app.command(name="list")
def list_(*, profile: str = "", json: bool = False) -> None:
    """
    Show every topic: key, cleanup, retention, partitions.

    Parameters
    ----------
    profile
        The sizes in topics.yaml, dev or production; default: as the settings say.
    json
        Print one JSON object.
    """
    topics = load()
    sizes = _profile(topics, profile)
    if json:
        plain = [_plain(topics, topic, sizes) for topic in topics.values()]
        print_json("topics", profile=sizes.name, topics=plain)
        return
    print_table(
        f"Topics under profile {sizes.name}",
        ("topic", "visibility", "key", "cleanup", "kept", "partitions"),
        [_row(topics, topic, sizes) for topic in topics.values()],
    )


@app.command
def describe(name: str, *, profile: str = "", json: bool = False) -> None:
    """
    Show all that topics.yaml says of one topic.

    Parameters
    ----------
    name
        The topic, as `pipeline topics list` shows it.
    profile
        The sizes in topics.yaml, dev or production; default: as the settings say.
    json
        Print one JSON object.
    """
    topics = load()
    if name not in topics:
        raise ConfigError(f"unknown topic {name!r}{did_you_mean(name, topics)}; see `pipeline topics list`")
    plain = _plain(topics, topics[name], _profile(topics, profile))
    if json:
        print_json("topic", **plain)
        return
    for field, value in plain.items():
        shown = ", ".join(value) if isinstance(value, list | tuple) else value
        if field == "deprecated" and value:
            shown = f"until {value['until']}; read {value['instead']} instead"
        print(f"{field:<14} {'-' if shown in ('', None) else shown}")


@app.command
def plan(target: ClusterTarget = _DEFAULT, *, json: bool = False) -> int:
    """
    Show how the cluster differs from topics.yaml, changelogs included.

    Exit codes: 0 it does not differ, 1 Kafka cannot be reached, 2 it differs.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    from pipeline.cli import cluster  # noqa: PLC0415 - list and describe need no Kafka client

    found = asyncio.run(cluster.plan(_settings(target)))
    _show(found, json=json)
    return 0 if found.is_clean else 2


@app.command
def apply(target: ClusterTarget = _DEFAULT, *, yes: bool = False, json: bool = False) -> int:
    """
    Show how the cluster differs, ask, and make it hold what topics.yaml says.

    Exit codes: 0 it does not differ any more, 1 Kafka refused, 2 something was not or cannot be applied.

    Parameters
    ----------
    yes
        Do not ask.
    json
        Print JSON, one object a line; needs --yes.
    """
    from pipeline.cli import cluster  # noqa: PLC0415

    if not yes and (json or not sys.stdin.isatty()):
        raise ConfigError("apply asks before it changes anything; give --yes where nobody can answer")
    settings = _settings(target)
    found = asyncio.run(cluster.plan(settings))
    _show(found, json=json)
    if found.refusals:
        raise ConfigError(found.refusals)
    changes = found.of("create", "grow", "alter")
    if changes and not yes and not _agreed(len(changes)):
        return 2
    if changes:
        asyncio.run(cluster.apply(settings, found))
    _show_applied(found, json=json)
    return 2 if found.of("by-hand") else 0


@app.command
def lag(
    target: ClusterTarget = _DEFAULT,
    *,
    group: tuple[str, ...] = (),
    watch: bool = False,
    every_s: float = 2.0,
    json: bool = False,
) -> None:
    """
    Show how far consumer groups are behind, by partition.

    Seconds are the age of the oldest record that waits, by when its source record was received.

    Parameters
    ----------
    group
        Only this group; give it again for another. Default: all of the cluster.
    watch
        Show it again and again, until Ctrl-C.
    every_s
        How often --watch does, in seconds.
    json
        Print one JSON object, with --watch one a line.
    """
    from pipeline.cli import lag as lags  # noqa: PLC0415

    asyncio.run(lags.show(_settings(target), group, watch_s=max(every_s, 0.1) if watch else None, json=json))


def _settings(target: Target) -> "Settings":
    from pipeline.cli import cluster  # noqa: PLC0415

    return cluster.settings_of(target.settings, target.bootstrap_servers, target.profile)


def _profile(topics: Topics, name: str) -> Profile:
    if name:
        return topics.profile(name)
    from pipeline.settings import load as load_settings  # noqa: PLC0415

    return topics.profile(load_settings().profile)


def _plain(topics: Topics, topic: Topic, profile: Profile) -> dict[str, Any]:
    """*topic* as JSON knows it, with the sizes it has under *profile*."""
    plain: dict[str, Any] = msgspec.to_builtins(topic, builtin_types=())
    return plain | {
        "partitions": topics.partitions(topic.name, profile),
        "replication": profile.replication,
    }


def _row(topics: Topics, topic: Topic, profile: Profile) -> tuple[str, ...]:
    return (
        topic.name,
        topic.visibility,
        topic.key,
        ",".join(topic.cleanup),
        "" if topic.retention_ms is None else f"{topic.retention_ms / 86_400_000:g} d",
        str(topics.partitions(topic.name, profile)),
    )


def _show(found: "Plan", *, json: bool) -> None:
    if json:
        differences = msgspec.to_builtins(found.differences)
        print_json("plan", clean=found.is_clean, topics=len(found.wanted), differences=differences)
    elif found.is_clean:
        print(f"All {len(found.wanted)} topics are as topics.yaml says.")
    else:
        columns = ("topic", "what", "found", "wanted", "apply", "because")
        print_table("Differences", columns, [_difference(each) for each in found.differences])


def _difference(each: "Difference") -> tuple[str, ...]:
    return each.topic, each.setting, each.found or "-", each.wanted, each.action, each.reason


def _show_applied(found: "Plan", *, json: bool) -> None:
    counts = {action: len(found.of(action)) for action in ("create", "grow", "alter", "by-hand")}
    if json:
        print_json("applied", **{name.replace("-", "_"): count for name, count in counts.items()})
    else:
        print(", ".join(f"{name} {count}" for name, count in counts.items()))


def _agreed(changes: int) -> bool:
    return input(f"Make these {changes} changes? [y/N] ").strip().lower() in {"y", "yes"}
