"""The live view of `pipeline dev` on a terminal, and its keys."""

import asyncio
import sys
import termios
import time
import tty
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline import logs
from pipeline.dev.monitor import Monitor, quantile
from pipeline.dev.progress import ProgressLines
from pipeline.dev.stack import Stack
from pipeline.errors import PipelineError
from pipeline.runtime.restore import Progress

__all__ = ["View", "restore_line"]

_REFRESH_S: Final = 1.0

#: What the key "f" switches on and off: the Users API refuses every other call for overload.
_FAULT: Final = {"kind": "throttled", "operation": "*", "probability": 0.5}

_KEYS: Final = "s send an event   f fault on/off   q quit"


class View:
    """Tells what starts where, then shows what goes on."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self.progress = ProgressLines()
        self._console = Console()
        self._begun = time.monotonic()
        self._keys: asyncio.Queue[str] = asyncio.Queue(maxsize=16)
        self._fault: int | None = None
        self._note = ""
        self._seen: dict[str, int] = {}

    def tell(self, kind: str, **fields: Any) -> None:
        """One aligned line per event of the life cycle."""
        seconds = time.monotonic() - self._begun
        told = "  ".join(f"{name} {value}" for name, value in fields.items())
        self._console.print(f"{seconds:6.2f} s  {kind:<15} {told}", highlight=False, soft_wrap=True)

    async def show(self, stack: Stack, monitor: Monitor) -> None:
        """Show until cancelled; a key may ask to stop."""
        with (
            _raw_keys(self._keys),
            Live(console=self._console, auto_refresh=False) as live,
            _logs_above(),
        ):
            while True:
                live.update(await self._drawn(stack, monitor), refresh=True)
                try:
                    async with asyncio.timeout(_REFRESH_S):
                        await self._pressed(await self._keys.get(), stack)
                except TimeoutError:
                    continue

    async def _pressed(self, key: str, stack: Stack) -> None:
        try:
            match key:
                case "q":
                    self._stopping.set()
                case "s":
                    await stack.sandbox.send()
                    self._note = "sent an event"
                case "f":
                    await self._switch(stack)
                case _:
                    pass
        except PipelineError as error:
            self._note = str(error)

    async def _switch(self, stack: Stack) -> None:
        if self._fault is None:
            self._fault = await stack.sandbox.put_fault(_FAULT)
            self._note = "fault on: half of all API calls are answered 429"
        else:
            await stack.sandbox.remove_fault(self._fault)
            self._fault = None
            self._note = "fault off"

    async def _drawn(self, stack: Stack, monitor: Monitor) -> Group:
        status = await stack.sandbox.status()
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column, justify in (("topic", "left"), ("records", "right"), ("per s", "right")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        counts = {"webhooks accepted": status["webhooks_accepted"], **monitor.counts}
        for name, count in counts.items():
            per_s = (count - self._seen.get(name, count)) / _REFRESH_S
            table.add_row(name, f"{count:,}", f"{per_s:,.0f}")
        self._seen = counts
        return Group(table, *self._lines(stack, monitor))

    def _lines(self, stack: Stack, monitor: Monitor) -> Iterator[Text]:
        recent = Counter(monitor.recent)
        p50, p99 = quantile(recent, 0.5), quantile(recent, 0.99)
        latency = "none yet" if p50 is None else f"p50 {p50} ms  p99 {p99} ms"
        yield Text(f"latency   webhook to activity.enriched  {latency}")
        yield Text(f"lag       {_lags(stack)}")
        if restoring := restore_line(_restores(stack)):
            yield Text(f"restoring {restoring}", style="yellow")
        if metrics := monitor.last_metrics:
            counted = "  ".join(
                f"{name} {metrics['measures'][name]}" for name in ("sent", "delivered", "replies")
            )
            where = " ".join(
                (metrics["tenant"], metrics["dimension"], metrics["width"], metrics["start"][:16])
            )
            yield Text(f"metrics   {where}  {counted}")
        if letter := monitor.last_dead_letter:
            yield Text(
                f"dead      {letter.get('stage')}: {letter.get('reason')} {letter.get('error', '')[:80]}"
            )
        for name, why in stack.process.worker.unready.items():
            yield Text(f"unready   {name}: {why}", style="yellow")
        yield Text(f"{_KEYS}   {self._note}", style="dim")


def _lags(stack: Stack) -> str:
    lags = stack.process.worker.last_lags
    told = (f"{name} {'?' if lag is None else lag}" for name, lag in lags.items() if lag != 0)
    return "  ".join(told) or "none"


def _restores(stack: Stack) -> list[Progress]:
    groups = stack.process.worker.groups.values()
    return [task.restore for group in groups for task in group.tasks.values() if task.state == "restoring"]


def restore_line(restores: Sequence[Progress]) -> str:
    """How far *restores* are, all together, and when the last of them will end; empty without any."""
    if not restores:
        return ""
    done, remaining = sum(each.restored for each in restores), sum(each.remaining for each in restores)
    per_s, ends = sum(each.per_s for each in restores), [each.eta_s for each in restores]
    left = "" if None in ends else f"  {max(end or 0.0 for end in ends):.0f} s left"
    return f"{len(restores)} stores  {done:,} records  {remaining:,} to go  {per_s:,.0f}/s{left}"


@contextmanager
def _logs_above() -> Iterator[None]:
    """Log through what `Live` has put in the place of standard error: above the view, not through it."""
    logs.configure("warning", "console", sys.stderr)
    try:
        yield
    finally:
        logs.configure("warning", "console", sys.__stderr__)


@contextmanager
def _raw_keys(keys: "asyncio.Queue[str]") -> Iterator[None]:
    """Each key pressed goes into *keys*, without waiting for Enter; the terminal is put right at the end."""
    descriptor = sys.stdin.fileno()
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not keys.full():
            keys.put_nowait(sys.stdin.read(1).lower())

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
