"""
The CPU time of one pure stage, without a broker: ``python -m tests.bench.stages --stage engagement``.

The sandbox's story runs through all stages once; then the stage alone takes what it took there again, in
batches of 500 records, its stores in memory. It prints one line of JSON. ``step`` is the stage's own time a
record, adding up and decoding what it reads from its stores included; the rest is that of the core around
it: records decoded, outputs and writes encoded. Compare figures of the same machine in the same minute only.
"""

import argparse
import cProfile
import gc
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import orjson

from pipeline import topology
from pipeline.codec import Record
from pipeline.identity import Identity
from pipeline.logs import configure
from pipeline.preflight import DEV_IDENTITY_SECRET
from pipeline.stage import Event, Outcome, Posted, Stage, Stores
from pipeline.testing import Driver
from tests.bench.whole_pipeline import outputs, settings_of, story

Step = Callable[[Stores, Event[Any]], Outcome]
AddUp = Callable[[Stores, Sequence[Posted]], list[tuple[Event[Any], Outcome]]]
R = TypeVar("R")

BATCH = 500

#: The least of so many runs is told: what disturbs a run only adds to it.
REPEATS = 3


class Stopwatch:
    """The CPU time that a stage's own functions take, less what reading the clock costs."""

    def __init__(self) -> None:
        self.steps = 0
        self._calls = 0
        self._nanoseconds = 0

    @property
    def seconds(self) -> float:
        """Of all calls together."""
        return (self._nanoseconds - self._calls * _clock_ns()) / 1e9

    def timed(self, stage: Stage) -> Stage:
        """*stage*, each call of whose ``step`` and ``add_up`` is timed."""

        def step(read: Stores, event: Event[Any]) -> Outcome:
            self.steps += 1
            return self._time(lambda: stage.step(read, event))

        def add_up(read: Stores, postings: Sequence[Posted]) -> list[tuple[Event[Any], Outcome]]:
            assert stage.add_up is not None
            made = stage.add_up
            return self._time(lambda: list(made(read, postings)))

        return _wrapped(stage, step, add_up)

    def _time(self, call: Callable[[], R]) -> R:
        begun = time.thread_time_ns()
        result = call()
        self._nanoseconds += time.thread_time_ns() - begun
        self._calls += 1
        return result


def profiled(stage: Stage, profiler: cProfile.Profile) -> Stage:
    """*stage*, whose own functions run under *profiler*."""

    def step(read: Stores, event: Event[Any]) -> Outcome:
        return profiler.runcall(stage.step, read, event)

    def add_up(read: Stores, postings: Sequence[Posted]) -> list[tuple[Event[Any], Outcome]]:
        assert stage.add_up is not None
        return profiler.runcall(list, profiler.runcall(stage.add_up, read, postings))

    return _wrapped(stage, step, add_up)


def played(records: int) -> tuple[Driver, dict[str, Stage]]:
    """The pipeline after *records* webhooks of the story, and its stages by name."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-bench-"))
    traffic, hooks = story(records, folder, time.time_ns() // 1_000_000)
    stages = topology.stages(
        settings_of(traffic, "unused:9092", folder), Identity(DEV_IDENTITY_SECRET.encode())
    )
    driver = Driver(stages, batches=(BATCH,))
    for output in outputs(traffic, hooks, driver.codec):
        driver.log.append(output)
    driver.run()
    return driver, {stage.name: stage for stage in stages}


def taken(stage: Stage, inputs: list[Record]) -> float:
    """CPU seconds in which *stage* takes *inputs*."""
    driver = Driver([stage], batches=(BATCH,))
    for record in inputs:
        driver.append(record)
    gc.collect()
    gc.freeze()  # collecting garbage must not cost more for a story that is kept in memory
    begun = time.process_time()
    driver.run()
    return time.process_time() - begun


def measured(name: str, records: int, profile: str) -> dict[str, Any]:
    """Measure the stage *name*; the figures."""
    driver, stages = played(records)
    stage = stages[name]
    inputs = [record for topic in stage.inputs for record in driver.records(topic)]
    runs = []
    for _ in range(REPEATS):
        stopwatch = Stopwatch()
        runs.append((taken(stopwatch.timed(stage), inputs), stopwatch.seconds, stopwatch.steps))
    total_s, step_s, steps = (min(figures) for figures in zip(*runs, strict=True))
    if profile:
        profiler = cProfile.Profile()
        taken(profiled(stage, profiler), inputs)
        profiler.dump_stats(profile)
    return {
        "kind": "bench",
        "work": name,
        "webhooks": records,
        "steps": steps,
        "outputs": sum(len(driver.records(topic)) for topic in stage.outputs),
        "step_us": round(step_s / steps * 1e6, 2),
        "steps_per_s": round(steps / step_s),
        "total_us": round(total_s / steps * 1e6, 2),
        "total_per_s": round(steps / total_s),
    }


def _wrapped(stage: Stage, step: Step, add_up: AddUp) -> Stage:
    return msgspec.structs.replace(stage, step=step, add_up=add_up if stage.add_up else None)


def _clock_ns() -> float:
    """What a pair of readings of the clock adds to what they measure."""
    begun = time.thread_time_ns()
    for _ in range(10_000):
        time.thread_time_ns()
    return (time.thread_time_ns() - begun) / 10_000


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", required=True, help="decode, enrich, engagement or rollup")
    parser.add_argument("--records", type=int, default=10_000, help="webhooks in the story")
    parser.add_argument("--profile", default="", help="write cProfile's figures of the steps to this file")
    given = parser.parse_args()
    configure("warning")
    random.seed(7)
    print(orjson.dumps(measured(given.stage, given.records, given.profile)).decode())


if __name__ == "__main__":
    main()
