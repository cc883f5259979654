"""`pipeline run`: the stream processors against a given Kafka and given APIs."""

import asyncio
from pathlib import Path

import orjson
import structlog

from pipeline import logs, preflight
from pipeline.cli.stopping import GRACE_S, beating, stopped_by_signals
from pipeline.runtime.run import Process, opened
from pipeline.settings import load
from pipeline.topology import printed

__all__ = ["run"]

_log = structlog.get_logger(__name__)


async def run(*, settings: Path | None = None, only: tuple[str, ...] = (), json: bool = False) -> None:
    """
    Run sources, stages and sinks until Ctrl-C or SIGTERM.

    Several processes share the work: start as many as there are partitions. It refuses to start on
    missing or unsafe settings, naming all of them. The admin port serves /live, /ready and /metrics.
    The first signal finishes and commits what is in progress; the second ends at once.

    Exit codes: 0 stopped, 1 failed, 2 the settings cannot be used.

    Examples::

        pipeline run --settings pipeline.yaml
        pipeline run --settings pipeline.yaml --only receiver
        PIPELINE_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 pipeline run --settings pipeline.yaml

    Parameters
    ----------
    settings
        The YAML file; PIPELINE_… variables win over it.
    only
        Parts to run: receiver, clock, poller, decode, broadcast, enrich, engagement, rollup, statistics.
        Repeat it or separate by commas.
    json
        Log and report in JSON, also on a terminal.
    """
    names = preflight.selected(only)
    read = load(settings)
    logs.configure(read.log.level, "json" if json else read.log.format)
    async with opened(read, names) as process:
        with stopped_by_signals(process.worker.stop, read.runtime.stop_timeout_s + GRACE_S):
            async with asyncio.TaskGroup() as tasks:
                beside = (
                    tasks.create_task(_tell(process, json=json), name="tell"),
                    tasks.create_task(beating(read.runtime.watchdog_s), name="beat"),
                )
                await process.worker.run()
                for each in beside:
                    each.cancel()


async def _tell(process: Process, *, json: bool) -> None:
    """Say what runs where, once everything is ready."""
    await process.worker.until_ready()
    where = {"admin": process.admin.url}
    if process.receiver is not None:
        where["receiver"] = process.receiver.url
    if json:
        print(orjson.dumps({"kind": "ready", **where}).decode(), flush=True)
    else:
        lines = [f"{name:<9} {url}" for name, url in where.items()]
        print("\n".join([*lines, printed(process.units)]), flush=True)
    _log.info("worker.started", **where)
