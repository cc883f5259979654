"""
The CPU time of one pure stage, without a broker: ``python -m tests.bench.stages --stage engagement``.

The sandbox's story runs through all stages once; then the stage alone takes what it took there again, in
batches of 500 records, its stores in memory. It prints one line of JSON. ``step`` is the stage's own time,
decoding what it reads from its stores included; the rest is that of the core around it: records decoded,
outputs and writes encoded. Compare figures of the same machine in the same minute only.
"""

import argparse
import cProfile
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from pipeline import topology
from pipeline.codec import Record
from pipeline.identity import Identity
from pipeline.logs import configure
from pipeline.preflight import DEV_IDENTITY_SECRET
from pipeline.stage import Event, Outcome, Stage, Stores
from pipeline.testing import Driver
from tests.bench.whole_pipeline import outputs, settings_of, story

Step = Callable[[Stores, Event[Any]], Outcome]

BATCH = 500


class Stopwatch:
    """The CPU time that calls of *step* take, less what reading the clock costs."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.calls = 0
        self._nanoseconds = 0

    def __call__(self, read: Stores, event: Event[Any]) -> Outcome:
        """Take the time of one step."""
        begun = time.thread_time_ns()
        outcome = self._step(read, event)
        self._nanoseconds += time.thread_time_ns() - begun
        self.calls += 1
        return outcome

    @property
    def seconds(self) -> float:
        """Of all calls together."""
        return (self._nanoseconds - self.calls * _clock_ns()) / 1e9


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


def taken(stage: Stage, step: Step, inputs: list[Record]) -> float:
    """CPU seconds in which *stage*, with *step* in place of its own, takes *inputs*."""
    driver = Driver([msgspec.structs.replace(stage, step=step)], batches=(BATCH,))
    for record in inputs:
        driver.append(record)
    begun = time.process_time()
    driver.run()
    return time.process_time() - begun


def measured(name: str, records: int, profile: str) -> dict[str, Any]:
    """Measure the stage *name*; the figures."""
    driver, stages = played(records)
    stage = stages[name]
    inputs = [record for topic in stage.inputs for record in driver.records(topic)]
    stopwatch = Stopwatch(stage.step)
    total_s = taken(stage, stopwatch, inputs)
    if profile:
        profiler = cProfile.Profile()
        taken(stage, lambda read, event: profiler.runcall(stage.step, read, event), inputs)
        profiler.dump_stats(profile)
    return {
        "kind": "bench",
        "work": name,
        "webhooks": records,
        "steps": stopwatch.calls,
        "outputs": sum(len(driver.records(topic)) for topic in stage.outputs),
        "step_us": round(stopwatch.seconds / stopwatch.calls * 1e6, 2),
        "steps_per_s": round(stopwatch.calls / stopwatch.seconds),
        "total_us": round(total_s / stopwatch.calls * 1e6, 2),
        "total_per_s": round(stopwatch.calls / total_s),
    }


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
