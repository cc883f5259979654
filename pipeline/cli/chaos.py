"""`pipeline chaos`: faults of every kind on a running pipeline, and the oracle's word on what came of it."""

import asyncio
import shutil
import sys
import time
from typing import Annotated, Any

import cyclopts

from pipeline import logs
from pipeline.chaos.life import live
from pipeline.chaos.scene import Options
from pipeline.cli.output import print_json
from pipeline.cli.stopping import stopped_by_signals
from pipeline.dev.progress import ProgressLines

__all__ = ["chaos"]


async def chaos(
    options: Annotated[Options | None, cyclopts.Parameter(name="*")] = None, *, json: bool = False
) -> int:
    """
    Let everything fail that can, again and again, and prove that nothing was lost or doubled.

    It starts three brokers as one cluster, sandboxes of both APIs with sample traffic, and the pipeline as
    three processes: one takes in, two share all stages and sinks. Then processes are stopped, killed,
    frozen and lose their disks; brokers are killed and frozen; connections are cut, stalled and delayed;
    both APIs refuse, fail, are late, and let tokens expire; webhooks come twice and in another order.
    What ends is started again, and helped in no other way. After the last fault it waits until everything
    is drained, compares every number with an independent oracle and prints a summary.

    Exit codes: 0 nothing lost, doubled or wrong; 1 something was, too little was seen to tell, or the
    pipeline did not recover; 2 the options cannot be used; 130 stopped before its end.

    Examples::

        pipeline chaos                                 # four minutes of it
        pipeline chaos --minutes 1 --seed 3 --json
        for seed in 1 2 3 4 5; do pipeline chaos --seed $seed || break; done

    Parameters
    ----------
    json
        Print JSON, one object a line, the summary last; also on a terminal.
    """
    plain = json or not sys.stdout.isatty()
    logs.configure("error", "json" if plain else "auto")
    stopping = asyncio.Event()
    told = print_json if plain else _Lines().tell
    with stopped_by_signals(stopping.set):
        found = await live(options or Options(), told, ProgressLines(), stopping)
    if found is None:
        return 130
    if plain:
        print_json(**found)
    else:
        _show(found)
    return 0 if found["passed"] else 1


class _Lines:
    """One aligned line per event; while it drains, one line that changes."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._open = False

    def tell(self, kind: str, **fields: Any) -> None:
        """Print one line."""
        told = "  ".join(f"{name} {value}" for name, value in fields.items() if name != "seconds")
        line = f"{time.monotonic() - self._begun:6.1f} s  {kind:<9} {told}"
        before = "\r\x1b[K" if self._open else ""
        self._open = kind == "draining"
        if self._open:  # what would not fit could not be taken back
            line = line[: shutil.get_terminal_size().columns - 1]
        print(before + line, end="" if self._open else "\n", flush=True)


def _show(found: dict[str, Any]) -> None:
    print()
    for kind, count in found["faults"].items():
        print(f"  {kind:<22} {count}")
    shown = ("faults_struck", "exits", "webhooks_sent", "compared", "lost", "doubled", "mismatches")
    for name in shown:
        print(f"{name:<24} {found[name]}")
    for example in found["examples"]:
        print(f"  {example}")
    for lacking in found["uncovered"]:
        print(f"  not seen: {lacking}")
    print("passed" if found["passed"] else f"failed; logs and data are in {found['folder']}")
