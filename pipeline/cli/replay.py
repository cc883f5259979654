"""`pipeline replay`: records that topics kept, read again."""

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import cyclopts
import msgspec

from pipeline.cli import replay_stages
from pipeline.cli.output import print_json, print_table
from pipeline.cli.topics import ClusterTarget, Target
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.cli.jobs import Work
    from pipeline.codec import Codec
    from pipeline.runtime.connection import Connection
    from pipeline.runtime.jobs import Job
    from pipeline.runtime.replay_group import GroupMove
    from pipeline.runtime.replay_range import Range
    from pipeline.settings import Settings

__all__ = ["app", "refuse_unanswered", "started"]

app = cyclopts.App(
    name="replay",
    help="""
    Records that topics kept, read again: by a group, copied to a side topic, or by stages run once more.

    `plan` shows what would happen, `start` shows it, asks, and runs it here as a durable job: Ctrl-C
    pauses it, `resume` goes on exactly where it stood, also after a crash. `status`, `pause` and `cancel`
    work from any terminal.

    Exit codes: 0 done, 1 Kafka failed (the job can be resumed), 2 what was asked cannot be done or was
    not agreed to, 3 paused or cancelled.
    """,
)
plan = cyclopts.App(name="plan", help="Show what a replay would do; change nothing.")
start = cyclopts.App(name="start", help="Show what a replay will do, ask, and run it.")
app.command(plan)
app.command(start)
plan.command(replay_stages.plan_stages, name="stages")
start.command(replay_stages.start_stages, name="stages")
for _command in (replay_stages.diff, replay_stages.promote, replay_stages.drop):
    app.command(_command)

#: Records a second by which the time of a group's way back is estimated.
EXPECTED_PER_S = 5_000.0


@dataclass(frozen=True, kw_only=True)
class GroupAsked:
    """
    Which group goes back, and where to.

    Parameters
    ----------
    to
        earliest, an offset, or a time such as 2030-01-10T12:00:00Z.
    topic
        Only this topic; may be given several times. Default: all that the group reads.
    consent
        Who of its owners agreed; needed for a group that is not of this pipeline, and kept in the job.
    """

    to: str
    topic: tuple[str, ...] = ()
    consent: str = ""


@dataclass(frozen=True, kw_only=True)
class RangeAsked:
    """
    Which records are copied, where to and how fast.

    Parameters
    ----------
    since
        From here: earliest, an offset, or a time such as 2030-01-10T12:00:00Z.
    until
        To before here: an offset or a time; default: the end as it is now.
    partition
        Only this partition; may be given several times.
    key
        Only records of this key; may be given several times.
    type
        Only records of this ce_type; may be given several times.
    tenant
        Only records of this tenant.
    to
        The side topic; default: replay.<job id>.<topic>.
    rate
        Records a second that are looked at, at most.
    live
        A group that is not to be held up; may be given several times. Default: the pipeline's own.
    """

    since: str
    until: str = ""
    partition: tuple[int, ...] = ()
    key: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    tenant: str = ""
    to: str = ""
    rate: float = 5_000.0
    live: tuple[str, ...] = ()


OfGroup = Annotated[GroupAsked, cyclopts.Parameter(name="*")]
OfRange = Annotated[RangeAsked, cyclopts.Parameter(name="*")]
_DEFAULT = Target()


@plan.command(name="group")
def plan_group(group: str, asked: OfGroup, target: ClusterTarget = _DEFAULT, *, json: bool = False) -> None:
    """
    Show how a group would go back: partitions, from, to, records, time.

    Parameters
    ----------
    group
        The consumer group, such as pipeline.enrich.
    json
        Print one JSON object.
    """
    settings = _settings(target)
    _show_group(asyncio.run(_group(settings, group, asked)), json=json)


@start.command(name="group")
def start_group(
    group: str, asked: OfGroup, target: ClusterTarget = _DEFAULT, *, yes: bool = False, json: bool = False
) -> int:
    """
    Let a group go back to a time or an offset; it must have no members.

    Stores stay as they are: what a stage of ours has counted it does not count again, but it writes what
    follows from its inputs once more. To run stages from empty stores is another thing.

    Parameters
    ----------
    group
        The consumer group, such as pipeline.enrich.
    yes
        Do not ask.
    json
        Print JSON, one object a line; needs --yes.
    """
    refuse_unanswered(yes=yes, json=json)
    settings = _settings(target)
    found = asyncio.run(_group(settings, group, asked, refuse_members=True))
    _show_group(found, json=json)
    if not yes and not _agreed(f"Let {group} read {found.records:,} records again?"):
        return 2
    return asyncio.run(started(settings, msgspec.to_builtins(found), found.records, json=json))


@plan.command(name="range")
def plan_range(topic: str, asked: OfRange, target: ClusterTarget = _DEFAULT, *, json: bool = False) -> None:
    """
    Show what would be copied to a side topic: partitions, from, to, records, time.

    Parameters
    ----------
    topic
        The topic whose records are copied.
    json
        Print one JSON object.
    """
    settings = _settings(target)
    _show_range(asyncio.run(_range(settings, topic, asked)), json=json)


@start.command(name="range")
def start_range(
    topic: str, asked: OfRange, target: ClusterTarget = _DEFAULT, *, yes: bool = False, json: bool = False
) -> int:
    """
    Copy a range of a topic to a side topic, in order, each record once.

    Partition, key, value, time and headers stay; the headers replay, replay_topic, replay_partition and
    replay_offset say where a copy is from. It slows down while live groups get further behind.

    Parameters
    ----------
    topic
        The topic whose records are copied.
    yes
        Do not ask.
    json
        Print JSON, one object a line; needs --yes.
    """
    refuse_unanswered(yes=yes, json=json)
    settings = _settings(target)
    found = asyncio.run(_range(settings, topic, asked))
    _show_range(found, json=json)
    if not yes and not _agreed(f"Copy up to {found.records:,} records of {topic}?"):
        return 2
    return asyncio.run(started(settings, msgspec.to_builtins(found), found.records, json=json))


@app.command
def status(id_: str = "", target: ClusterTarget = _DEFAULT, *, json: bool = False) -> None:
    """
    Show all jobs, or one: replays, and whatever else operators have begun.

    Parameters
    ----------
    id_
        The job.
    json
        Print one JSON object.
    """
    asyncio.run(_status(_settings(target), id_, json=json))


@app.command
def pause(id_: str, target: ClusterTarget = _DEFAULT, *, json: bool = False) -> None:
    """
    Let a job stop at its next page; `resume` goes on.

    Parameters
    ----------
    id_
        The job.
    json
        Print one JSON object.
    """
    asyncio.run(_wish(_settings(target), id_, "pause", json=json))


@app.command
def cancel(id_: str, target: ClusterTarget = _DEFAULT, *, json: bool = False) -> None:
    """
    End a job for good; what it has written stays.

    Parameters
    ----------
    id_
        The job.
    json
        Print one JSON object.
    """
    asyncio.run(_wish(_settings(target), id_, "cancel", json=json))


@app.command
def resume(id_: str, target: ClusterTarget = _DEFAULT, *, json: bool = False) -> int:
    """
    Go on with a job that was paused, failed or killed, where its last transaction stood.

    Whoever still runs it elsewhere is fenced.

    Parameters
    ----------
    id_
        The job.
    json
        Print JSON, one object a line.
    """
    return asyncio.run(_resumed(_settings(target), id_, json=json))


# ---------------------------------------------------------------- plans


async def _group(
    settings: "Settings", group: str, asked: GroupAsked, *, refuse_members: bool = False
) -> "GroupMove":
    from pipeline.cli.jobs import connected  # noqa: PLC0415
    from pipeline.runtime import replay_group  # noqa: PLC0415
    from pipeline.runtime.replay_points import point  # noqa: PLC0415

    is_ours = group.startswith(f"{settings.application_id}.")
    if not is_ours and not asked.consent:
        raise ConfigError(
            f"group {group}: is not of this pipeline ({settings.application_id}.…);"
            ' give --consent "<who of its owners agreed>"'
        )
    async with connected(settings, "pipeline-replay") as (connection, codec, _):
        if refuse_members:
            await replay_group.refuse_members(connection, group)
        return await replay_group.planned(
            connection,
            group,
            point(asked.to, "--to"),
            topics=asked.topic,
            retention_ms=_retention(codec),
            consent=asked.consent,
        )


async def _range(settings: "Settings", topic: str, asked: RangeAsked) -> "Range":
    from pipeline.cli.jobs import connected  # noqa: PLC0415
    from pipeline.runtime import replay_range  # noqa: PLC0415
    from pipeline.runtime.replay_points import Point, point  # noqa: PLC0415

    if asked.rate <= 0:
        raise ConfigError(f"--rate: {asked.rate:g} is not allowed; more than 0 records a second")
    since = point(asked.since, "--since")
    until = point(asked.until, "--until") if asked.until else None
    if until == Point():
        raise ConfigError("--until: 'earliest' is no end; allowed: an offset or a time")
    selection = replay_range.Selection(
        keys=asked.key,
        types=asked.type,
        tenant=asked.tenant,
        since_ms=since.time_ms,
        until_ms=until.time_ms if until else None,
    )
    async with connected(settings, "pipeline-replay") as (connection, codec, _):
        await replay_range.refuse_target(connection, codec.topics, asked.to)
        begins, ends = await replay_range.bounds(
            connection, topic, (since, until), partitions=asked.partition, retention_ms=_retention(codec)
        )
    return replay_range.Range(
        topic=topic,
        target=asked.to,
        begins=begins,
        ends=ends,
        selection=selection,
        rate=asked.rate,
        live=asked.live or _own_groups(settings),
    )


def _own_groups(settings: "Settings") -> tuple[str, ...]:
    from pipeline.cli.cluster import stages_of  # noqa: PLC0415
    from pipeline.runtime.names import group_id  # noqa: PLC0415

    return tuple(group_id(settings.application_id, stage.name) for stage in stages_of(settings))


def _retention(codec: "Codec") -> dict[str, int | None]:
    return {name: topic.retention_ms for name, topic in codec.topics.items()}


def _show_group(found: "GroupMove", *, json: bool) -> None:
    if json:
        print_json(
            "plan", **msgspec.to_builtins(found), records=found.records, seconds=_seconds(found.records)
        )
        return
    rows = [
        (each.topic, str(each.partition), str(each.at), str(each.to), f"{each.records:,}")
        for each in found.moves
    ]
    print_table(f"Group {found.group}", ("topic", "partition", "from", "to", "records"), rows)
    print(f"{found.records:,} records again, {_seconds(found.records):,} s at {EXPECTED_PER_S:,.0f} a second")
    if found.consent:
        print(f"agreed to by {found.consent}")


def _show_range(found: "Range", *, json: bool) -> None:
    seconds = _seconds(found.records, found.rate)
    if json:
        print_json("plan", **msgspec.to_builtins(found), records=found.records, seconds=seconds)
        return
    rows = [
        (found.topic, number, str(begin), str(found.ends[number]), f"{max(0, found.ends[number] - begin):,}")
        for number, begin in found.begins.items()
    ]
    target = found.target or f"replay.<job id>.{found.topic}"
    print_table(f"To {target}", ("topic", "partition", "from", "to before", "records"), rows)
    print(f"up to {found.records:,} records, {seconds:,} s at {found.rate:,.0f} a second, to {target}")


def _seconds(records: int, per_s: float = EXPECTED_PER_S) -> int:
    return round(records / per_s)


# ---------------------------------------------------------------- jobs


async def started(settings: "Settings", spec: dict[str, object], total: int, *, json: bool) -> int:
    """Begin a job to do what *spec* says, and run it here; returns the exit code."""
    from pipeline.cli.jobs import connected  # noqa: PLC0415
    from pipeline.runtime.jobs import new_job  # noqa: PLC0415

    async with connected(settings, "pipeline-replay") as (_, _, jobs):
        job = await jobs.create(new_job("replay", spec, total=total))
    if json:
        print_json("created", id=job.id)
    else:
        print(f"job {job.id}: see it with `pipeline replay status {job.id}`", flush=True)
    return await _resumed(settings, job.id, json=json)


async def _resumed(settings: "Settings", id_: str, *, json: bool) -> int:
    from pipeline.cli.jobs import connected, foreground  # noqa: PLC0415
    from pipeline.runtime.jobs import ENDED  # noqa: PLC0415

    async with connected(settings, "pipeline-replay") as (connection, codec, jobs):
        job = await jobs.get(id_)
        if job.kind != "replay":
            raise ConfigError(f"job {id_}: is a {job.kind}, no replay; resume it with that command")
        if job.state in ENDED:
            raise ConfigError(f"job {id_}: is {job.state} already")
        ended = await foreground(connection, codec, id_, _work(settings, connection, job), json=json)
    if ended.cursor.get("caught_up") and not json:
        print(f"caught up; compare with `pipeline replay diff {id_}`")
    return 0 if ended.state == "done" or ended.cursor.get("caught_up") else 3


def _work(settings: "Settings", connection: "Connection", job: "Job") -> "Work":
    from pipeline.runtime import replay_group, replay_range  # noqa: PLC0415

    if job.spec["what"] in {"stages", "promote"}:
        return replay_stages.work_of(settings, job)
    if job.spec["what"] == "group":
        return lambda runner: replay_group.move(connection, runner)
    return lambda runner: replay_range.run(connection, runner)


async def _status(settings: "Settings", id_: str, *, json: bool) -> None:
    from pipeline.cli.jobs import connected, show, show_all  # noqa: PLC0415

    async with connected(settings, "pipeline-replay") as (_, _, jobs):
        if id_:
            show(await jobs.get(id_), json=json)
        else:
            show_all(await jobs.list(), json=json)


async def _wish(settings: "Settings", id_: str, wanted: str, *, json: bool) -> None:
    from pipeline.cli.jobs import connected, show, wish  # noqa: PLC0415

    async with connected(settings, "pipeline-replay") as (connection, codec, jobs):
        show(await wish(connection, codec, jobs, id_, wanted), json=json)  # type: ignore[arg-type]


def _settings(target: Target) -> "Settings":
    from pipeline.cli import cluster  # noqa: PLC0415

    return cluster.settings_of(target.settings, target.bootstrap_servers, target.profile)


def refuse_unanswered(*, yes: bool, json: bool) -> None:
    """
    Refuse to begin where nobody can be asked.

    Raises:
        ConfigError: nobody can, and *yes* was not given.
    """
    if not yes and (json or not sys.stdin.isatty()):
        raise ConfigError("start asks before it changes anything; give --yes where nobody can answer")


def _agreed(question: str) -> bool:
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
