"""`pipeline replay … stages`, `diff`, `promote`, `drop`: stages run again beside the live ones."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline.cli.output import print_json, print_table
from pipeline.cli.topics import ClusterTarget, Target
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.cli.jobs import Work
    from pipeline.runtime.cluster import Cluster
    from pipeline.runtime.jobs import Job
    from pipeline.runtime.replay_stages import Rerun
    from pipeline.runtime.shadow import Shadow
    from pipeline.settings import Settings
    from pipeline.stage import Stage

__all__ = ["diff", "drop", "plan_stages", "promote", "start_stages", "work_of"]

_DEFAULT = Target()


def plan_stages(*stage: str, since: str, target: ClusterTarget = _DEFAULT, json: bool = False) -> None:
    """
    Show how stages would run again: number, where their inputs begin, records.

    Parameters
    ----------
    stage
        The stages, such as engagement rollup; default: all of them.
    since
        From here: earliest, or a time such as 2030-01-10T12:00:00Z.
    json
        Print one JSON object.
    """
    _show_plan(asyncio.run(_planned(_settings(target), stage, since)), json=json)


def start_stages(
    *stage: str, since: str, target: ClusterTarget = _DEFAULT, yes: bool = False, json: bool = False
) -> int:
    """
    Run stages again beside the live ones, under names of their own, until they have caught up.

    They have their own groups and state, write to r<N>.<topic>, and act on nothing outside. Tables that the
    replay does not write itself are joined as they are now.

    Parameters
    ----------
    stage
        The stages, such as engagement rollup; default: all of them.
    since
        From here: earliest, or a time such as 2030-01-10T12:00:00Z.
    yes
        Do not ask.
    json
        Print JSON, one object a line; needs --yes.
    """
    from pipeline.cli.replay import refuse_unanswered, started  # noqa: PLC0415

    refuse_unanswered(yes=yes, json=json)
    settings = _settings(target)
    found = asyncio.run(_planned(settings, stage, since))
    _show_plan(found, json=json)
    if not yes and not _agreed(f"Run {', '.join(found.stages)} again over {found.records:,} records?"):
        return 2
    return asyncio.run(started(settings, msgspec.to_builtins(found), found.records, json=json))


def diff(
    id_: str,
    *,
    topic: tuple[str, ...] = (),
    limit: int = 100,
    unmask: bool = False,
    target: ClusterTarget = _DEFAULT,
    json: bool = False,
) -> int:
    """
    Show which keys of the replay's tables differ from the live ones, and by which fields.

    How often a window was published (revision) is no difference. Personal data is masked.

    Exit codes: 0 nothing differs, 1 Kafka failed, 2 something differs or cannot be asked.

    Parameters
    ----------
    id_
        The replay's job.
    topic
        Only this table; may be given several times.
    limit
        Show the fields of so many keys at most.
    unmask
        Show personal data.
    json
        Print JSON, one object a line.
    """
    return asyncio.run(_diff(_settings(target), id_, topic, limit, unmask=unmask, json=json))


def promote(
    id_: str,
    *,
    effects: bool = False,
    target: ClusterTarget = _DEFAULT,
    yes: bool = False,
    yes_effects: bool = False,
    json: bool = False,
) -> int:
    """
    Copy the keys of the replay's tables that differ to the live tables, marked with the header replay.

    The live stages that write them must not run meanwhile, and the replay must have caught up. Keys that the
    replay never wrote stay. Sinks take what is copied into their state, and act on it only with --effects.

    Parameters
    ----------
    id_
        The replay's job.
    effects
        Let sinks act on what is copied, as on any record. Asks once more.
    yes
        Do not ask whether to copy.
    yes_effects
        Do not ask whether sinks may act.
    json
        Print JSON, one object a line; needs --yes.
    """
    from pipeline.cli.replay import refuse_unanswered, started  # noqa: PLC0415

    refuse_unanswered(yes=yes and (yes_effects or not effects), json=json)
    settings = _settings(target)
    spec, keys = asyncio.run(_promotion(settings, id_, effects=effects))
    if json:
        print_json("plan", **spec, keys=keys)
    else:
        print(f"{sum(keys.values()):,} keys: " + ", ".join(f"{name} {count}" for name, count in keys.items()))
    if not yes and not _agreed("Copy them to the live tables?"):
        return 2
    if effects and not yes_effects and not _agreed("Really let sinks act on them, outside of this pipeline?"):
        return 2
    return asyncio.run(started(settings, spec, sum(keys.values()), json=json))


def drop(id_: str, *, target: ClusterTarget = _DEFAULT, yes: bool = False, json: bool = False) -> int:
    """
    Delete what a replay has made: its topics, changelogs, groups, and its state on this machine.

    Parameters
    ----------
    id_
        The replay's job.
    yes
        Do not ask.
    json
        Print JSON, one object a line; needs --yes.
    """
    from pipeline.cli.replay import refuse_unanswered  # noqa: PLC0415

    refuse_unanswered(yes=yes, json=json)
    return asyncio.run(_drop(_settings(target), id_, yes=yes, json=json))


def work_of(settings: "Settings", job: "Job") -> "Work":
    """What runs *job*, which is about stages."""
    from pipeline.runtime import replay_stages, replay_tables  # noqa: PLC0415

    async def work(runner: Any) -> "Job":
        async with _cluster(settings) as (cluster, stages):
            if job.spec["what"] == "stages":
                shadow = replay_stages.shadow_of(job, stages, cluster)
                return await replay_stages.rerun(cluster, shadow, runner)
            of, shadow = await _of(settings, str(job.spec["of"]), cluster, stages)
            await _refuse_live(cluster, of)  # also where it is resumed
            return await replay_tables.promote(cluster.connection, shadow, cluster.partitions, runner)

    return work


# ---------------------------------------------------------------- what the commands do


async def _planned(settings: "Settings", names: tuple[str, ...], since: str) -> "Rerun":
    from pipeline.cli.jobs import connected  # noqa: PLC0415
    from pipeline.runtime.replay_points import point  # noqa: PLC0415
    from pipeline.runtime.replay_stages import chosen, planned  # noqa: PLC0415

    at = point(since, "--since")
    if at.offset is not None:
        raise ConfigError(f"--since: {since} is an offset, and stages read several topics; give a time")
    async with _cluster(settings) as (cluster, stages):
        async with connected(settings, "pipeline-replay") as (_, _, jobs):
            taken = [int(job.spec.get("number", 0)) for job in await jobs.list()]
        return await planned(cluster, chosen(stages, names), at, told=since, taken=taken)


async def _diff(
    settings: "Settings", id_: str, tables: tuple[str, ...], limit: int, *, unmask: bool, json: bool
) -> int:
    from pipeline.runtime.replay_tables import compared, shown  # noqa: PLC0415

    async with _cluster(settings) as (cluster, stages):
        _, shadow = await _of(settings, id_, cluster, stages)
        unknown = [name for name in tables if name not in shadow.tables]
        if unknown:
            known = ", ".join(shadow.tables)
            raise ConfigError(f"--topic: {unknown[0]!r} is no table of this replay; allowed: {known}")
        place = (cluster.connection, shadow, cluster.partitions)
        found = await compared(*place, tables)
        told = shown(*place, found[:limit], unmask=unmask)
        rows = [(each, fields) async for each, fields in told]
    if json:
        for each, fields in rows:
            print_json("difference", table=each.table, key=each.key, how=each.kind, fields=fields)
        print_json("differences", count=len(found))
    else:
        columns = ("table", "key", "how", "fields")
        print_table("Differences", columns, [(e.table, e.key, e.kind, _short(f)) for e, f in rows])
        print(f"{len(found):,} keys differ" + (f", {limit} are shown" if len(found) > limit else ""))
    return 2 if found else 0


async def _promotion(
    settings: "Settings", id_: str, *, effects: bool
) -> tuple[dict[str, Any], dict[str, int]]:
    """What is asked, and how many keys of each table it copies."""
    from pipeline.runtime import replay_stages, replay_tables  # noqa: PLC0415

    async with _cluster(settings) as (cluster, stages):
        job, shadow = await _of(settings, id_, cluster, stages)
        if not replay_stages.caught_up(job):
            raise ConfigError(f"job {id_}: has not caught up; go on with `pipeline replay resume {id_}`")
        await _refuse_live(cluster, job)
        unread = await replay_stages.behind(cluster, shadow)
        if unread:
            told = ", ".join(f"{count} of {topic}" for topic, count in unread.items())
            raise ConfigError(
                f"job {id_}: has not read {told}; go on with `pipeline replay resume {id_}`, then promote"
            )
        found = await replay_tables.compared(cluster.connection, shadow, cluster.partitions)
    copied = [each.table for each in found if each.kind != "only-live"]
    asked = replay_tables.Promotion(of=id_, number=shadow.number, effects=effects)
    return msgspec.to_builtins(asked), {table: copied.count(table) for table in dict.fromkeys(copied)}


async def _refuse_live(cluster: "Cluster", job: "Job") -> None:
    """Refuse where live stages run that write what replay *job* writes: they would be overwritten."""
    from pipeline.runtime.names import group_id  # noqa: PLC0415
    from pipeline.runtime.replay_group import refuse_members  # noqa: PLC0415

    for name in job.spec["stages"]:
        await refuse_members(cluster.connection, group_id(cluster.application_id, name))


async def _drop(settings: "Settings", id_: str, *, yes: bool, json: bool) -> int:
    from pipeline.cli.jobs import connected, wish  # noqa: PLC0415
    from pipeline.runtime import replay_stages  # noqa: PLC0415
    from pipeline.runtime.jobs import ENDED  # noqa: PLC0415

    async with _cluster(settings) as (cluster, stages):
        job, shadow = await _of(settings, id_, cluster, stages)
        topics, groups = await replay_stages.leftovers(cluster, shadow)
        if json:
            print_json("plan", topics=topics, groups=groups)
        else:
            print("\n".join([f"topic {name}" for name in topics] + [f"group {name}" for name in groups]))
        if not yes and not _agreed(f"Delete these {len(topics)} topics and {len(groups)} groups?"):
            return 2
        if job.state not in ENDED:
            async with connected(settings, "pipeline-replay") as (connection, codec, jobs):
                await wish(connection, codec, jobs, id_, "cancel")
        await replay_stages.drop(cluster, shadow, topics, groups)
    if json:
        print_json("dropped", topics=len(topics), groups=len(groups))
    return 0


@asynccontextmanager
async def _cluster(settings: "Settings") -> AsyncIterator[tuple["Cluster", tuple["Stage", ...]]]:
    """What tasks work with, and the stages; refused where the settings are not those of the live ones."""
    from pipeline import logs, preflight, topology  # noqa: PLC0415
    from pipeline.runtime.connection import Connection  # noqa: PLC0415
    from pipeline.runtime.run import allow_files, check_identity, cluster_of  # noqa: PLC0415

    logs.configure("warning", settings.log.format)  # its progress is told by the job
    preflight.check(settings)
    allow_files()
    identity = preflight.identity_of(settings)
    connection = Connection(settings.kafka, settings.runtime, "pipeline-replay")
    cluster = await cluster_of(settings, connection)
    async with AsyncExitStack() as stack:
        await check_identity(cluster, identity, stack)
        yield cluster, topology.stages(settings, identity)


async def _of(
    settings: "Settings", id_: str, cluster: "Cluster", stages: tuple["Stage", ...]
) -> tuple["Job", "Shadow"]:
    """The replay of stages that job *id_* is, and its shadow."""
    from pipeline.cli.jobs import connected  # noqa: PLC0415
    from pipeline.runtime.replay_stages import shadow_of  # noqa: PLC0415

    async with connected(settings, "pipeline-replay") as (_, _, jobs):
        job = await jobs.get(id_)
    if job.spec.get("what") != "stages":
        raise ConfigError(f"job {id_}: is no replay of stages")
    return job, shadow_of(job, stages, cluster)


def _show_plan(found: "Rerun", *, json: bool) -> None:
    if json:
        print_json("plan", **msgspec.to_builtins(found))
        return
    rows = [
        (group, topic, number, str(at))
        for group, topics in found.begins.items()
        for topic, partitions in topics.items()
        for number, at in partitions.items()
    ]
    print_table(f"Replay r{found.number}", ("group", "topic", "partition", "from"), rows)
    print(
        f"{', '.join(found.stages)} from {found.since}, up to {found.records:,} records,"
        f" to r{found.number}.…\nTables that it does not write itself are joined as they are now."
    )


def _short(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {each['live']} -> {each['replay']}" for name, each in fields.items())


def _settings(target: Target) -> "Settings":
    from pipeline.cli import cluster  # noqa: PLC0415

    return cluster.settings_of(target.settings, target.bootstrap_servers, target.profile)


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
