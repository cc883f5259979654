"""
The life of `pipeline chaos`: start, traffic under fire, heal, drain, compare.

The processes are never helped: after the last fault they have to come back by themselves, or by ending with
an error and being started again.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import msgspec

from pipeline.chaos.judgement import judged
from pipeline.chaos.repeats import repeats
from pipeline.chaos.scene import Options, Scene, make_topics, opened
from pipeline.chaos.schedule import Fault, schedule
from pipeline.chaos.strikes import strike
from pipeline.dev.settled import settled
from pipeline.dev.verification import partitions_of, read_topics, verified
from pipeline.errors import PipelineError

__all__ = ["Tell", "live"]

#: Told each event of the life cycle: its kind and its fields.
Tell = Callable[..., None]

#: Until all processes are ready for the first time, in seconds.
_READY_S: Final = 90.0

#: Until nothing is left to do after the last fault, in seconds.
_DRAIN_S: Final = 300.0

#: A change at an API is known within so long: API storms, brokers and processes that are away hold it up.
_POLL_DELAY_S: Final = 240.0

#: Until the stages know what time it is, in seconds: a tick or two.
_TICKS_S: Final = 3.0

_LOOK_S: Final = 0.1

#: Between two words on how far the drain is, in seconds.
_TOLD_S: Final = 1.0


@final
class Run(msgspec.Struct):
    """What a run has done so far."""

    scene: Scene
    tell: Tell
    begun: float
    struck: Counter[str]
    missed: Counter[str]  #: faults that found nothing to strike


async def live(
    options: Options, tell: Tell, on_progress: Callable[[Any], None], stopping: asyncio.Event
) -> dict[str, Any] | None:
    """
    Run to the end, or until *stopping*: the summary, or None.

    Raises:
        PipelineError: it cannot be started, or the pipeline has not recovered in time; says why.
    """
    begun = time.monotonic()
    async with opened(options, tell, on_progress) as scene:
        run = Run(scene, tell, begun, Counter(), Counter())
        async with asyncio.TaskGroup() as tasks:
            playing = tasks.create_task(_played(run), name="chaos")
            stopped = tasks.create_task(stopping.wait(), name="stopping")
            await asyncio.wait((playing, stopped), return_when=asyncio.FIRST_COMPLETED)
            playing.cancel()
            stopped.cancel()
    return None if playing.cancelled() else playing.result()


async def _played(run: Run) -> dict[str, Any]:
    """Run the processes for as long as the play takes; they are killed after it."""
    await make_topics(run.scene)
    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(one.run(), name=name) for name, one in run.scene.processes.items()]
        try:
            found = await _play(run)
        finally:
            for life in lives:
                life.cancel()
    return found


async def _play(run: Run) -> dict[str, Any]:
    scene, options = run.scene, run.scene.options
    await _ready(run)
    await scene.sandbox.start(scene.receiver, options.rate)
    planned = schedule(options.seed, options.minutes * 60)
    run.tell("traffic", rate=options.rate, seed=options.seed, faults_planned=len(planned))
    await _under_fire(run, planned, options.minutes * 60)
    await scene.sandbox.stop()
    run.tell("healed", **await _counts(run))
    await _ready(run)
    await _windows_closed(run)
    await _delivered(run)
    partitions = await partitions_of(scene.connection)
    await settled(scene.settings, scene.connection, partitions, _DRAIN_S, _drain_teller(run))
    run.tell("drained", seconds=_since(run))
    return await _summary(run, partitions)


async def _ready(run: Run) -> None:
    """
    Return when each process has told that it is ready, in the life that it lives now.

    Raises:
        PipelineError: one is not in time.
    """
    processes = run.scene.processes.values()
    try:
        async with asyncio.timeout(_READY_S):
            while not all(process.told for process in processes):  # noqa: ASYNC110 - three to wait for
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        late = ", ".join(f"{process.name} (see {process.log})" for process in processes if not process.told)
        raise PipelineError(f"not ready within {_READY_S:.0f} s: {late}") from error
    run.tell("ready", seconds=_since(run))


async def _under_fire(run: Run, planned: Sequence[Fault], seconds: float) -> None:
    """Strike as planned, and return when *seconds* have passed and every fault is healed."""
    begun = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for fault in planned:
            await asyncio.sleep(max(0.0, begun + fault.at_s - time.monotonic()))
            tasks.create_task(_struck(run, fault), name=f"{fault.kind} {fault.target}")
        await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))


async def _struck(run: Run, fault: Fault) -> None:
    run.tell("fault", at_s=fault.at_s, fault=fault.kind, target=fault.target, for_s=fault.for_s)
    try:
        await strike(run.scene, fault)
    except TimeoutError:
        run.missed[fault.kind] += 1
    else:
        run.struck[fault.kind] += 1


async def _delivered(run: Run) -> None:
    """
    Return when every webhook has had its last attempt.

    Raises:
        PipelineError: some have not in time.
    """
    pending = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while pending := (await run.scene.sandbox.status())["pending"]:
                run.tell("draining", left=f"{pending} webhooks are under way", seconds=_since(run))
                await asyncio.sleep(_TOLD_S)
    except TimeoutError as error:
        raise PipelineError(f"{pending} webhooks are not taken within {_DRAIN_S:.0f} s") from error
    await run.scene.sandbox.drain()


async def _windows_closed(run: Run) -> None:
    """Return when the windows that close during a run should have: theirs are numbers to compare as well."""
    boundary_ms = (await run.scene.sandbox.status())["boundary_ms"]
    closing_s = boundary_ms / 1000 + run.scene.settings.engagement.grace_s + _TICKS_S
    left_s = closing_s - time.time()
    if left_s > 0:
        run.tell("draining", left="windows are to close", seconds=_since(run))
        await asyncio.sleep(left_s)


def _drain_teller(run: Run) -> Callable[[str], None]:
    return lambda left: run.tell("draining", left=left, seconds=_since(run))


async def _summary(run: Run, partitions: int) -> dict[str, Any]:
    scene = run.scene
    records = await read_topics(scene.connection, partitions)
    held = await scene.sandbox.holdings()
    report = await verified(scene.settings, scene.sandbox.ledger, records, held, poll_delay_s=_POLL_DELAY_S)
    topics = Counter(record.topic for record in records)
    return {
        "kind": "summary",
        "seed": scene.options.seed,
        "minutes": scene.options.minutes,
        "seconds": _since(run),
        "folder": str(scene.options.folder),
        "faults": {str(kind): count for kind, count in sorted(run.struck.items())},
        "faults_struck": run.struck.total(),
        "faults_missed": run.missed.total(),
        **await _counts(run),
        "activity_enriched": topics["activity.enriched"],
        **judged(report, repeats(records)),
    }


async def _counts(run: Run) -> dict[str, Any]:
    """How often processes ended, by exit code, and what became of the webhooks."""
    status = await run.scene.sandbox.status()
    exits: Counter[int] = Counter()
    for process in run.scene.processes.values():
        exits += process.exits
    slowest = max(process.slowest_stop_s for process in run.scene.processes.values())
    return {
        "slowest_stop_s": round(slowest, 1),
        "exits": {str(code): count for code, count in sorted(exits.items())},
        **{name: status[name] for name in ("webhooks_sent", "webhooks_accepted", "webhooks_lost")},
    }


def _since(run: Run) -> float:
    return round(time.monotonic() - run.begun, 1)
