"""What the commands on dead letters share: which cluster and letters are meant, who decides, plans."""

import getpass
import logging
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import cyclopts
import msgspec

from pipeline.cli import cluster
from pipeline.cli.output import print_table
from pipeline.cli.topics import Target
from pipeline.codec import Codec
from pipeline.errors import ConfigError
from pipeline.runtime import audit
from pipeline.runtime.admin import Admin
from pipeline.runtime.connection import Connection
from pipeline.runtime.decisions import Group, Plan
from pipeline.runtime.letters import EDITS, TOPIC, Letters, Selection
from pipeline.settings import Settings
from pipeline.tail.moments import moment_ms
from pipeline.topics import load as load_topics

__all__ = [
    "MOST",
    "Desk",
    "Which",
    "WhichLetters",
    "agreed",
    "counted",
    "desk",
    "operator",
    "plan_fields",
    "plan_lines",
    "selection_of",
    "words_of",
]

#: How many letters one decision may be about: the plan of a million takes some hundred MB.
MOST: Final = cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1, lte=1_000_000))

#: Topics that letters and decisions stand on.
_NEEDED: Final = (TOPIC, EDITS, audit.TOPIC, "jobs", "jobs.wanted")

_ID: Final = re.compile(r"\d{1,4}-\d{1,18}")


@dataclass(frozen=True, kw_only=True)
class Which:
    """
    Which dead letters are meant: those that are all that is given.

    Parameters
    ----------
    stage
        Refused by this stage or sink.
    topic
        Read from this topic.
    reason
        Refused for this reason, such as late or invalid-value.
    tenant
        Of this tenant.
    since
        Received since then: so long ago (10m, 2h, 1d), or a time (2030-01-01T12:00:00Z).
    until
        Received before then.
    """

    stage: str = ""
    topic: str = ""
    reason: str = ""
    tenant: str = ""
    since: str = ""
    until: str = ""


WhichLetters = Annotated[Which, cyclopts.Parameter(name="*")]


@dataclass(frozen=True)
class Desk:
    """The cluster whose dead letters are worked on."""

    settings: Settings
    connection: Connection
    codec: Codec
    letters: Letters


async def desk(target: Target) -> Desk:
    """
    The cluster that *target* means.

    Raises:
        ConfigError: it is not said which, or it lacks a topic that decisions are kept on.
        BrokerError: Kafka does not answer.
    """
    settings = cluster.settings_of(target.settings, target.bootstrap_servers, target.profile)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say reaches us as errors
    connection = Connection(settings.kafka, settings.runtime, "pipeline-dlq")
    async with Admin(connection.common) as admin:
        found = await admin.found(_NEEDED)
    if missing := [name for name in _NEEDED if name not in found]:
        raise ConfigError(
            f"{name}: the cluster lacks this topic; `pipeline topics apply`" for name in missing
        )
    # Sizes are the cluster's own, whichever profile it was made with.
    codec = Codec(load_topics(), found[TOPIC].partitions, settings.application_id)
    return Desk(settings, connection, codec, Letters(connection, codec))


def selection_of(which: Which, ids: tuple[str, ...] = ()) -> Selection:
    """
    *which* and *ids* as the runtime has them.

    Raises:
        ConfigError: an id or a time is none.
    """
    wrong = [
        f"id: {id_!r} is none; allowed: partition-offset, as `pipeline dlq list` shows them"
        for id_ in ids
        if not _ID.fullmatch(id_)
    ]
    if wrong:
        raise ConfigError(wrong)
    now_ms = time.time_ns() // 1_000_000
    return Selection(
        ids=ids,
        stage=which.stage,
        topic=which.topic,
        reason=which.reason,
        tenant=which.tenant,
        since_ms=moment_ms("--since", which.since, now_ms) if which.since else None,
        until_ms=moment_ms("--until", which.until, now_ms) if which.until else None,
    )


def words_of(which: Which, ids: tuple[str, ...]) -> dict[str, Any]:
    """What of *which* and *ids* was given, as it was given."""
    return {name: value for name, value in (asdict(which) | {"ids": list(ids)}).items() if value}


def operator(by: str) -> str:
    """Who decides: *by*, else whoever is logged in."""
    return by or getpass.getuser()


def counted(title: str, groups: tuple[Group, ...]) -> None:
    """Print *groups* as a table."""
    rows = [(each.stage or "-", each.reason or "-", f"{each.count:,}") for each in groups]
    print_table(title, ("stage", "reason", "letters"), rows)


def plan_lines(plan: Plan) -> list[str]:
    """What *plan* says beside its counts."""
    lines = [f"{plan.matching:,} open letters match, {plan.taken:,} are taken"]
    if plan.decided:
        lines.append(f"{plan.decided:,} more were redriven or discarded before")
    lines += [f"{count:,} cannot be put back: {why}" for why, count in plan.obstacles.items()]
    left = plan.matching - plan.taken - sum(plan.obstacles.values())
    if left:
        lines.append(f"{left:,} are left for another time: --limit")
    if plan.edited:
        lines.append(f"{plan.edited:,} with the value that they were given by `edit`")
    return lines


def plan_fields(plan: Plan) -> Mapping[str, Any]:
    """*plan* for programs."""
    return {
        "matching": plan.matching,
        "taken": plan.taken,
        "decided": plan.decided,
        "obstacles": plan.obstacles,
        "edited": plan.edited,
        "counts": msgspec.to_builtins(plan.groups),
    }


def agreed(question: str, *, yes: bool, json: bool) -> bool:
    """
    Whether the operator agrees.

    Raises:
        ConfigError: nobody can be asked.
    """
    if yes:
        return True
    if json or not sys.stdin.isatty():
        raise ConfigError("it asks before it changes anything; give --yes where nobody can answer")
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
