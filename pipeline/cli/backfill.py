"""`pipeline backfill`: history from both APIs, onto the topic that webhooks and pollers write."""

import asyncio
import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
import msgspec

from pipeline.cli.output import print_json, print_table
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.events import Job
    from pipeline.runtime.backfill import Backfills
    from pipeline.runtime.jobs import Wanted
    from pipeline.settings import Settings
    from pipeline.sources.history import Asked, Estimate

__all__ = ["app"]

app = cyclopts.App(
    name="backfill",
    help="""
    History from both APIs, onto the topic that webhooks and pollers write.

    What webhooks lost is made good, and nothing counts twice: a fact has the same identity from wherever
    it comes. `sakari` and `users` show what the backfill takes, ask, and run it here as a durable job:
    Ctrl-C pauses it, `resume` goes on exactly where it stood, also after a crash. `status`, `pause` and
    `cancel` work from any terminal. Live work has the APIs' limits first (settings backfill.share and
    backfill.reserve).

    Exit codes: 0 done, 1 something could not be read or Kafka failed (`resume` tries it again), 2 what was
    asked cannot be done or was not agreed to, 3 paused or cancelled.

    Examples::

        pipeline backfill sakari --since 7d --settings pipeline.yaml
        pipeline backfill sakari --since 2030-01-01 --until 2030-01-15 --tenant acme --resources messages
        pipeline backfill users --since 1d --resources tags,contacts --yes --json
        pipeline backfill sakari --since 30d --plan
        pipeline backfill status
        pipeline backfill resume 5f0c2a91
    """,
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """
    Whose accounts are meant, and which cluster.

    Parameters
    ----------
    settings
        The YAML file of settings, as `pipeline run` has it; PIPELINE_… variables win over it.
    bootstrap_servers
        Kafka's host:port,…; default: as the settings say.
    """

    settings: Path | None = None
    bootstrap_servers: str = ""


@dataclass(frozen=True, kw_only=True)
class History:
    """
    What is fetched.

    Parameters
    ----------
    since
        From here: a day (2030-01-31, UTC), an instant (2030-01-31T12:00:00Z) or a span before now (90m,
        12h, 30d). It bounds messages and conversations; all else is state, of which there is no history:
        it is fetched as it is now.
    until
        To before here, likewise; default: now.
    tenant
        Only this tenant; may be given several times, or separated by commas.
    resources
        Only these, separated by commas. Of sakari: contacts, conversations, messages; of users: tags,
        accounts, users, contacts, statistics.
    plan
        Show what it takes, and do nothing.
    yes
        Do not ask.
    json
        Print JSON, one object a line: the plan, progress on standard error, and the job as it ended.
    """

    since: str
    until: str = ""
    tenant: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    plan: bool = False
    yes: bool = False
    json: bool = False


Wherever = Annotated[Target, cyclopts.Parameter(name="*")]
Whatever = Annotated[History, cyclopts.Parameter(name="*")]
_HERE = Target()


@app.command
async def sakari(history: Whatever, target: Wherever = _HERE) -> int:
    """
    Fetch messages, conversations and contacts of Sakari.

    Examples::

        pipeline backfill sakari --since 7d --settings pipeline.yaml
        pipeline backfill sakari --since 2030-01-01 --until 2030-01-15 --tenant acme --resources messages
    """
    return await _begun("sakari", history, target)


@app.command
async def users(history: Whatever, target: Wherever = _HERE) -> int:
    """
    Fetch tags, profiles, users, contacts and statistics of the Users API, as they are now.

    Examples::

        pipeline backfill users --since 1d --settings pipeline.yaml
        pipeline backfill users --since 1d --resources tags,contacts --yes --json
    """
    return await _begun("users", history, target)


@app.command
async def resume(id_: str, /, target: Wherever = _HERE, *, json: bool = False) -> int:
    """
    Go on with a backfill where its last transaction stood; what could not be read is tried again.

    Parameters
    ----------
    id_
        The job, as `pipeline backfill status` shows it.
    json
        Print JSON, one object a line.
    """
    from pipeline.runtime.backfill import opened  # noqa: PLC0415

    async with opened(_settings(target)) as backfills:
        return await _run(backfills, id_, json=json)


@app.command
async def status(target: Wherever = _HERE, *, json: bool = False) -> int:
    """
    Show all jobs of the cluster, of every kind, and how they get on.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    from pipeline.cli.jobs import connected, show_all  # noqa: PLC0415

    async with connected(_settings(target), "pipeline-backfill") as (_, _, jobs):
        show_all(await jobs.list(), json=json)
    return 0


@app.command
async def pause(id_: str, /, target: Wherever = _HERE, *, json: bool = False) -> int:
    """
    Let a backfill pause after its page, wherever it runs.

    Parameters
    ----------
    id_
        The job, as `pipeline backfill status` shows it.
    json
        Print one JSON object.
    """
    return await _wished(id_, "pause", target, json=json)


@app.command
async def cancel(id_: str, /, target: Wherever = _HERE, *, json: bool = False) -> int:
    """
    End a backfill for good, wherever it runs; what it has published stays.

    Parameters
    ----------
    id_
        The job, as `pipeline backfill status` shows it.
    json
        Print one JSON object.
    """
    return await _wished(id_, "cancel", target, json=json)


async def _begun(product: str, history: History, target: Target) -> int:
    from pipeline.runtime.backfill import opened  # noqa: PLC0415 - help and errors need no Kafka client
    from pipeline.sources.history import asked, period  # noqa: PLC0415

    if not (history.yes or history.plan) and (history.json or not sys.stdin.isatty()):
        raise ConfigError("backfill asks before it begins; give --yes where nobody can answer, or --plan")
    settings = _settings(target)
    wanted = period(history.since, history.until, _now_ms(), settings.decode.seen_days)
    meant = asked(settings, product, wanted, history.tenant, history.resources)
    async with opened(settings) as backfills:
        estimates = await backfills.plan(meant)
        _show(meant, estimates, settings, json=history.json)
        if history.plan:
            return 0
        if not history.yes and not await asyncio.to_thread(_agreed):
            return 2
        job = await backfills.create(meant, _sum(each.calls for each in estimates))
        return await _run(backfills, job.id, json=history.json)


async def _run(backfills: "Backfills", id_: str, *, json: bool) -> int:
    from pipeline.cli.jobs import foreground  # noqa: PLC0415

    job = await foreground(backfills.connection, backfills.codec, id_, backfills.run, json=json)
    if not json:
        _tell(job)
    return {"done": 0, "failed": 1}.get(job.state, 3)


async def _wished(id_: str, wanted: "Wanted", target: Target, *, json: bool) -> int:
    from pipeline.cli.jobs import connected, show, wish  # noqa: PLC0415

    async with connected(_settings(target), "pipeline-backfill") as (connection, codec, jobs):
        show(await wish(connection, codec, jobs, id_, wanted), json=json)
    return 0


def _settings(target: Target) -> "Settings":
    from pipeline.cli.cluster import settings_of  # noqa: PLC0415

    return settings_of(target.settings, target.bootstrap_servers)


def _agreed() -> bool:
    from pipeline.cli.jobs import agreed  # noqa: PLC0415

    return agreed("Fetch this?")


def _show(asked: "Asked", estimates: "Sequence[Estimate]", settings: "Settings", *, json: bool) -> None:
    """Print what a backfill takes."""
    from pipeline.sources.history import rate  # noqa: PLC0415

    per_s = rate(settings, asked.product)
    calls = _sum(each.calls for each in estimates)
    seconds = _seconds(estimates, per_s)
    per_day = settings.users.requests_per_day * settings.backfill.share if asked.product == "users" else None
    if json:
        told: dict[str, Any] = msgspec.to_builtins({"asked": asked, "resources": list(estimates)})
        print_json("plan", **told, calls=calls, calls_per_s=per_s, calls_per_day=per_day, seconds=seconds)
        return
    columns = ("tenant", "account", "resource", "items", "calls")
    print_table(f"Backfill of {asked.product}", columns, [_row(each) for each in estimates])
    print(f"Facts from {asked.period.since} to {asked.period.until}; all else as it is now.")
    number = "?" if calls is None else f"{calls:,}"
    day = f" and {per_day:,.0f} a day" if per_day else ""
    time = "nobody knows how long" if seconds is None else _span(seconds)
    print(
        f"About {number} calls, at most {per_s:g} a second{day} for each account (settings backfill.share): "
        f"{time}, and longer while live work needs the limits."
    )


def _row(each: "Estimate") -> tuple[str, ...]:
    numbers = (each.items, each.calls)
    return (each.tenant, each.account, each.resource, *("?" if n is None else f"{n:,}" for n in numbers))


def _sum(numbers: Any) -> int | None:
    """The sum of *numbers*; None where one of them is not known."""
    known = list(numbers)
    return None if None in known else sum(known)


def _seconds(estimates: "Sequence[Estimate]", per_s: float) -> int | None:
    """How long the calls take where each account goes at its own pace, and a few at the same time."""
    from pipeline.sources.backfill import WORKERS  # noqa: PLC0415

    by_account: dict[str, int] = {}
    for each in estimates:
        if each.calls is None:
            return None
        by_account[each.account] = by_account.get(each.account, 0) + each.calls
    longest, total = max(by_account.values()), sum(by_account.values())
    return ceil(max(longest, total / min(WORKERS, len(by_account))) / per_s)


def _span(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _tell(job: "Job") -> None:
    from pipeline.sources.backfill import standing_of  # noqa: PLC0415

    standing = standing_of(job)
    print(f"{standing.items:,} items listed, {standing.published:,} of them published.")
    if standing.out_of_reach:
        print(f"{standing.out_of_reach:,} were out of reach by the time they were read (decode.seen_days).")
    if standing.too_large:
        print(f"{standing.too_large:,} are too large for a record.")


def _now_ms() -> int:
    import time  # noqa: PLC0415

    return time.time_ns() // 1_000_000
