"""`pipeline dlq redrive|status|pause|resume|cancel`: dead letters back to the stages that refused them."""

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

import cyclopts
import msgspec

from pipeline.cli.letters import (
    MOST,
    Desk,
    Which,
    WhichLetters,
    agreed,
    counted,
    desk,
    operator,
    plan_fields,
    plan_lines,
    selection_of,
    words_of,
)
from pipeline.cli.output import print_json, print_table
from pipeline.cli.stopping import stopped_by_signals
from pipeline.cli.topics import ClusterTarget, Target
from pipeline.errors import BrokerError, ConfigError
from pipeline.runtime.decisions import Plan, obstacle, planned
from pipeline.runtime.jobs import ENDED, Job, Jobs
from pipeline.runtime.letters import Selection
from pipeline.runtime.overtaken import Overtaken, overtaken
from pipeline.runtime.redrive import KIND, Asked, asked_of, busy, cancelled, created, is_alive
from pipeline.runtime.redrive import redrive as run_redrive
from pipeline.runtime.transaction import FencedError

__all__ = ["cancel", "pause", "redrive", "resume", "status"]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: Exit code of a redrive that was paused or cancelled.
_NOT_DONE: Final = 3

#: How often progress is told at most, in seconds.
_TELL_S: Final = 1.0

#: Keys that are named in a plan for people; programs get them all.
_KEYS_SHOWN: Final = 10

_AT_LEAST_ONE = cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))
_ALL: Final = Which()
_CLUSTER: Final = Target()


@dataclass(frozen=True, kw_only=True)
class How:
    """
    How much, how fast, under which name.

    Parameters
    ----------
    all_
        All open letters, where nothing else says which.
    limit
        So many at most.
    rate
        So many a second at most.
    id
        A name for this redrive. The same again goes on where it stopped, and adds nothing once it is done.
    by
        Who does it; default: who is logged in.
    dry_run
        Show the plan, and do nothing.
    yes
        Do not ask.
    json
        Print JSON, one object a line.
    """

    all_: Annotated[bool, cyclopts.Parameter(name="--all", negative=())] = False
    limit: Annotated[int, MOST] = 10_000
    rate: Annotated[int, _AT_LEAST_ONE] = 100
    id: str = ""
    by: str = ""
    dry_run: Annotated[bool, cyclopts.Parameter(negative=())] = False
    yes: Annotated[bool, cyclopts.Parameter(negative=())] = False
    json: Annotated[bool, cyclopts.Parameter(negative=())] = False


_FLAT: Final = cyclopts.Parameter(name="*")
_FLAG: Final = cyclopts.Parameter(negative=())


async def redrive(
    *letters: str,
    which: WhichLetters = _ALL,
    how: Annotated[How, _FLAT] = How(),
    target: ClusterTarget = _CLUSTER,
) -> int:
    """
    Put dead letters back to the stages that refused them: plan, question, progress.

    They go to <stage>.redrive, which nobody else reads, with the value that `edit` gave them, if it did.
    One that is refused again is a new dead letter, which remembers all attempts. The plan tells which keys
    have later records that were processed already: for these the order is not that of arrival.
    Ctrl-C pauses; the same --id goes on, also after a crash. Each letter is put back once, whoever tries.

    Exit codes: 0 all was put back, 1 Kafka failed, 2 what was asked cannot be done or was not agreed to,
    3 it was paused or cancelled.

    Examples::

        pipeline dlq redrive --stage decode --reason unknown-tenant --dry-run
        pipeline dlq redrive --stage decode --reason unknown-tenant --id acme-added
        pipeline dlq redrive 0-1200 1-87 --yes
        pipeline dlq redrive --all --limit 5000 --rate 200 --yes --json

    Parameters
    ----------
    letters
        Ids of letters, as `pipeline dlq list` shows them.
    """
    if how.id and not _ID.fullmatch(how.id):
        raise ConfigError(f"--id: {how.id!r}; allowed: 1 to 64 letters, digits, ., _ and -")
    at = await desk(target)
    jobs = Jobs(at.connection, at.codec)
    try:
        job = await _known(jobs, how.id, words_of(which, letters))
        if job is None:
            selection = selection_of(which, letters)
            if selection == Selection() and not how.all_:
                raise ConfigError("say which letters: ids, --stage, --reason, … or --all")
            plan = await _plan(at, jobs, selection, how)
            if how.dry_run or not plan.taken:
                return 0
            if not agreed(f"Put {plan.taken:,} letters back?", yes=how.yes, json=how.json):
                return 2
            words = words_of(which, letters)
            asked = Asked(
                selection=selection, words=words, limit=how.limit, by=operator(how.by), ends=plan.ends
            )
            job = await created(jobs, how.id, asked, plan.taken)
        elif how.dry_run:
            _Progress(json=how.json).end(job)
            return 0
        return await _run(at, jobs, job, how)
    finally:
        await jobs.close()


async def _known(jobs: Jobs, id_: str, words: dict[str, Any]) -> Job | None:
    """The redrive that *id_* named before, if nothing else is asked of it than then."""
    job = next((each for each in await jobs.list() if each.id == id_), None) if id_ else None
    if job is None:
        return None
    if job.kind != KIND:
        raise ConfigError(f"--id: {id_!r} is the name of a {job.kind}; take another")
    asked = asked_of(job)
    if words and words != asked.words:
        told = " ".join(f"{name}={value}" for name, value in asked.words.items()) or "all"
        raise ConfigError(f"--id: {id_!r} is the name of another redrive ({told}); take another name")
    return job


async def _plan(at: Desk, jobs: Jobs, selection: Selection, how: How) -> Plan:
    """What a new redrive would be about, shown."""
    await busy(jobs)
    plan = await planned(at.letters, selection, how.limit, lambda *one: obstacle(at.codec, *one))
    _show_plan(plan, await overtaken(at.connection, at.codec, plan.letters), how)
    return plan


async def _run(at: Desk, jobs: Jobs, job: Job, how: How) -> int:
    """Run *job* unless it has ended; returns the exit code."""
    progress = _Progress(json=how.json)
    if job.state not in ENDED:
        await busy(jobs, but=job.id)
        await jobs.want(job.id, "run")
        with _hint(job.id):
            job = await _foreground(at, job.id, how.rate, progress)
    progress.end(job)
    return 0 if job.state == "done" else _NOT_DONE


async def _foreground(at: Desk, id_: str, rate: int, progress: "_Progress") -> Job:
    stopping = asyncio.Event()
    with stopped_by_signals(stopping.set):
        return await run_redrive(
            at.connection, at.codec, id_, rate=rate, stopping=stopping, told=progress.tell
        )
    raise AssertionError  # a second signal raises


@contextmanager
def _hint(id_: str) -> Iterator[None]:
    """Tell of what Kafka refuses how to go on."""
    try:
        yield
    except FencedError as error:
        told = f"redrive {id_}: somebody else decides of dead letters now"
        raise BrokerError(f"{told}; go on later: pipeline dlq resume {id_}") from error
    except BrokerError as error:
        raise BrokerError(f"{error}; go on with: pipeline dlq resume {id_}") from error


async def resume(
    name: str,
    *,
    rate: Annotated[int, _AT_LEAST_ONE] = 100,
    target: ClusterTarget = _CLUSTER,
    json: Annotated[bool, _FLAG] = False,
) -> int:
    """
    Go on with a redrive that was paused, or whose process or Kafka failed.

    Exit codes: as those of redrive.

    Examples::

        pipeline dlq resume acme-added --rate 500

    Parameters
    ----------
    name
        Its name, as `pipeline dlq status` shows it.
    rate
        So many a second at most.
    json
        Print JSON, one object a line.
    """
    at = await desk(target)
    jobs = Jobs(at.connection, at.codec)
    try:
        return await _run(at, jobs, await _named(jobs, name), How(rate=rate, json=json))
    finally:
        await jobs.close()


async def pause(name: str, *, target: ClusterTarget = _CLUSTER, json: Annotated[bool, _FLAG] = False) -> None:
    """
    Stop a redrive behind its page, wherever it runs; `resume` goes on with it.

    Exit codes: 0 it stops, 1 Kafka failed, 2 there is none of that name.

    Examples::

        pipeline dlq pause acme-added

    Parameters
    ----------
    name
        Its name, as `pipeline dlq status` shows it.
    json
        Print one JSON object.
    """
    at = await desk(target)
    jobs = Jobs(at.connection, at.codec)
    try:
        job = await _named(jobs, name)
        await jobs.want(name, "pause")
    finally:
        await jobs.close()
    _tell_wish(job, json=json)


async def status(
    name: str = "",
    *,
    target: ClusterTarget = _CLUSTER,
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """
    Show redrives: what was asked, how far each is.

    Exit codes: 0 shown, 1 Kafka failed, 2 there is none of that name.

    Examples::

        pipeline dlq status
        pipeline dlq status acme-added --json

    Parameters
    ----------
    name
        The name of one; default: all.
    json
        Print JSON, one object a redrive.
    """
    at = await desk(target)
    jobs = Jobs(at.connection, at.codec)
    found = [await jobs.get(name)] if name else [job for job in await jobs.list() if job.kind == KIND]
    if json:
        for job in found:
            print_json(KIND, **_fields(job))
        return
    rows = [(job.id, job.state, _of(job), f"{job.per_s or 0:,.0f}", job.updated_at or "") for job in found]
    print_table("Redrives", ("id", "state", "put back", "per s", "updated"), rows)


async def cancel(
    name: str, *, target: ClusterTarget = _CLUSTER, json: Annotated[bool, _FLAG] = False
) -> None:
    """
    End a redrive for good, wherever it runs; what it has put back stays so.

    Exit codes: 0 it ends, 1 Kafka failed, 2 there is none of that name.

    Examples::

        pipeline dlq cancel acme-added

    Parameters
    ----------
    name
        Its name, as `pipeline dlq status` shows it.
    json
        Print one JSON object.
    """
    at = await desk(target)
    jobs = Jobs(at.connection, at.codec)
    try:
        job = await _named(jobs, name)
        await jobs.want(name, "cancel")
        if job.state not in ENDED and not is_alive(job):
            job = await cancelled(at.connection, at.codec, job)
    finally:
        await jobs.close()
    _tell_wish(job, json=json)


async def _named(jobs: Jobs, name: str) -> Job:
    """The redrive *name*."""
    job = await jobs.get(name)
    if job.kind != KIND:
        raise ConfigError(f"{name}: is a {job.kind}, no redrive")
    return job


def _tell_wish(job: Job, *, json: bool) -> None:
    if json:
        print_json(KIND, **_fields(job))
    else:
        print(f"{job.id}: {'ends with its next page' if is_alive(job) else job.state}, {_of(job)} put back")


class _Progress:
    """Tells how far a redrive is, once a second: a line that counts on a terminal, else one after another."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._counting = False
        self._due_s = 0.0

    def tell(self, job: Job) -> None:
        """A page was put back."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + _TELL_S
        if self._json:
            print_json("progress", **_fields(job))
            return
        self._counting = sys.stderr.isatty()
        text = f"{_of(job)} put back, {job.per_s or 0:,.0f} a second"
        print(
            f"\r{text:<60}" if self._counting else text, end="" if self._counting else "\n", file=sys.stderr
        )
        sys.stderr.flush()

    def end(self, job: Job) -> None:
        """It stops here."""
        if self._counting:
            print(file=sys.stderr)
        if self._json:
            print_json(KIND, **_fields(job))
            return
        print(f"redrive {job.id}: {job.state}, {_of(job)} put back")
        if job.state == "paused":
            print(f"go on with: pipeline dlq resume {job.id}")


def _of(job: Job) -> str:
    return f"{job.done:,} of {job.total or 0:,}"


def _fields(job: Job) -> dict[str, Any]:
    """*job* for programs."""
    plain: dict[str, Any] = msgspec.to_builtins(job)
    asked = asked_of(job)
    kept = ("id", "state", "wanted", "done", "total", "per_s", "begun_at", "updated_at", "error")
    return {name: plain[name] for name in kept} | {"asked": asked.words, "by": asked.by}


def _show_plan(plan: Plan, order: Overtaken, how: How) -> None:
    if how.json:
        print_json("plan", **plan_fields(plan), order=msgspec.to_builtins(order))
        return
    for line in plan_lines(plan):
        print(line)
    if plan.groups:
        counted("Taken", plan.groups)
    if order.later:
        more = "" if len(order.later) <= _KEYS_SHOWN else ", …"
        print(
            f"Order: of {order.keys:,} keys {len(order.later):,} have later records, processed already:"
            f" {', '.join(order.later[:_KEYS_SHOWN])}{more}"
        )
    if order.unknown:
        print(f"Order: of {order.unknown:,} keys it is not known whether later records were processed")
