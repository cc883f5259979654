"""`pipeline dev`: everything on one machine, nothing configured."""

import asyncio
import sys
from typing import Annotated, Any

import cyclopts

from pipeline import logs
from pipeline.cli.output import print_json
from pipeline.cli.stopping import stopped_by_signals
from pipeline.dev.life import Until, live
from pipeline.dev.monitor import Monitor
from pipeline.dev.stack import Options, Stack
from pipeline.dev.view import View
from pipeline.errors import ConfigError

__all__ = ["dev"]


async def dev(
    options: Annotated[Options | None, cyclopts.Parameter(name="*")] = None,
    *,
    exit_after: str | None = None,
    json: bool = False,
) -> int:
    """
    Run it all: a real Kafka, sandboxes of both APIs, sample traffic, and the pipeline itself.

    On a terminal it shows what goes on and takes keys: s sends an event, f switches an API fault on and
    off, q quits. Elsewhere, or with --json, it prints one line of JSON per event of the life cycle.

    With --exit-after it stops the traffic then, waits until everything is drained, compares every number
    with an independent oracle and prints a summary.

    Exit codes: 0 done, and with --exit-after no mismatch and enough was seen; 1 failed, or a mismatch;
    2 the options cannot be used; 130 stopped before what --exit-after asks for was done.

    Examples::

        pipeline dev
        pipeline dev --exit-after 60 --rate 200 --json
        pipeline dev --exit-after 5000webhooks --seed 3 --tenants acme --tenants bolt

    Parameters
    ----------
    exit_after
        Seconds of traffic (60, 60s), or a number of webhooks (5000webhooks).
    json
        Print JSON, also on a terminal.
    """
    until = _until(exit_after)
    plain = json or not sys.stdout.isatty()
    logs.configure("warning", "json" if plain else "auto")
    stopping = asyncio.Event()
    with stopped_by_signals(stopping.set):
        found = await live(options or Options(), until, stopping, Lines() if plain else View(stopping))
    if found is None:
        return 130 if until.given else 0
    _end(found, plain=plain)
    return 0 if found["oracle"]["passed"] else 1


def _until(text: str | None) -> Until:
    if text is None:
        return Until()
    count = text.removesuffix("webhooks")
    number = count if count != text else text.removesuffix("s")
    try:
        value = float(number)
    except ValueError:
        value = 0
    if value <= 0:
        raise ConfigError(f"--exit-after: {text!r}; give seconds (60, 60s) or webhooks (5000webhooks)")
    return Until(webhooks=round(value)) if count != text else Until(seconds=value)


class Lines:
    """One JSON line per event of the life cycle."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def tell(self, kind: str, **fields: Any) -> None:
        """Print one line."""
        print_json(kind, **fields)

    def progress(self, step: Any) -> None:
        """Print each text once."""
        if step.text not in self._texts:
            self._texts.add(step.text)
            print_json("progress", text=step.text)

    async def show(self, _: Stack, __: Monitor) -> None:
        """Nothing between the lines."""
        await asyncio.Event().wait()


def _end(found: dict[str, Any], *, plain: bool) -> None:
    if plain:
        print_json(**found)
        return
    oracle = found["oracle"]
    latency = found["latency_ms"]
    shown = {**found, "latency_ms": f"p50 {latency['p50']}  p99 {latency['p99']}"}
    for name, value in shown.items():
        if name not in {"kind", "oracle"}:
            print(f"{name:<22} {value}")
    print(f"{'oracle':<22} {oracle['compared']} compared, {oracle['mismatches']} mismatches")
    for example in oracle["examples"]:
        print(f"  {example}")
    for lacking in oracle["uncovered"]:
        print(f"  not seen: {lacking}")
