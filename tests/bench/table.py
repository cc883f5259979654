"""
The figures of all benchmarks as tables: on the terminal, and in the README between its markers.

``python -m tests.bench.table`` prints them, and puts them into the README, from the last results.
"""

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import msgspec

from pipeline.runtime.broker_files import KAFKA_VERSION

RESULTS = Path(".pipeline/bench/results.json")
README = Path(__file__).parents[2] / "README.md"
NOT_YET = "not measured yet"
_BLOCK = re.compile(r"(<!-- bench:.*?-->\n).*?(\n<!-- /bench -->)", re.DOTALL)


@final
class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a part told: its lines, the day, and how long it took."""

    at: str
    seconds: int
    lines: list[dict[str, Any]]

    @property
    def bench(self) -> Mapping[str, Any]:
        """The line of its figures."""
        return next(line for line in reversed(self.lines) if line["kind"] == "bench")


@final
class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What every part told last."""

    parts: dict[str, Measured] = {}


def load(file: Path = RESULTS) -> Results:
    """The results in *file*; none where there is none."""
    return msgspec.json.decode(file.read_bytes(), type=Results) if file.exists() else Results()


def save(file: Path, results: Results) -> None:
    """Put *results* into *file*, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    new.replace(file)


@final
class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: which *part* told it and under which names, the largest counts; and its bar."""

    what: str
    part: str
    fields: tuple[str, ...]
    unit: str = ""
    least: float | None = None
    most: float | None = None

    def value(self, results: Results) -> float | None:
        """The figure, None where it was not measured."""
        measured = results.parts.get(self.part)
        told = [measured.bench.get(name) for name in self.fields] if measured else []
        return max((value for value in told if value is not None), default=None)

    @property
    def bar(self) -> str:
        """What is to be reached."""
        if self.least is not None:
            return f"≥ {number(self.least)}{self.unit}"
        return f"≤ {number(self.most)}{self.unit}" if self.most is not None else ""

    def cells(self, results: Results) -> tuple[str, str, str, str]:
        """What, bar, measured, and whether that reaches the bar."""
        value = self.value(results)
        if value is None:
            return self.what, self.bar, NOT_YET, ""
        reached = (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        return (
            self.what,
            self.bar,
            f"{number(value)}{self.unit}",
            ("yes" if reached else "no") * bool(self.bar),
        )


ROWS = (
    Row(what="tally: records/s, one process", part="peers", fields=("records_per_s",)),
    Row(what="tally, of Quix Streams", part="peers", fields=("of_quix",), unit=" ×", least=6),
    Row(what="tally, of Kafka Streams", part="peers", fields=("of_kafka_streams",), unit=" ×", least=2.5),
    Row(what="tally, of the ceiling", part="peers", fields=("of_ceiling",), unit=" ×", least=0.55),
    Row(
        what="whole pipeline, all stages in one process: webhook records/s",
        part="whole",
        fields=("records_per_s",),
        least=15_000,
    ),
    Row(
        what="webhook to `activity.enriched` at 500/s, p50",
        part="latency",
        fields=("p50_ms",),
        unit=" ms",
        most=50,
    ),
    Row(
        what="webhook to `activity.enriched` at 500/s, p99",
        part="latency",
        fields=("p99_ms",),
        unit=" ms",
        most=250,
    ),
    Row(
        what="receiver with durable ack, of a bare aiohttp handler's requests/s",
        part="receiver",
        fields=("share_of_bare",),
        unit=" ×",
        least=0.6,
    ),
    Row(what="cold restore: keys/s", part="restore", fields=("cold_keys_per_s",), least=150_000),
    Row(
        what="restart with a kept disk, 1 M keys: to the first processed record",
        part="restore",
        fields=("kept_first_record_s",),
        unit=" s",
        most=3,
    ),
    Row(
        what="memory of a worker with 1 M keys",
        part="restore",
        fields=("cold_rss_mb", "kept_rss_mb"),
        unit=" MB",
        most=300,
    ),
    Row(
        what="kill at 1 M keys, with a standby: reassignment to the first processed record",
        part="standby",
        fields=("kill_with_standby_first_s",),
        unit=" s",
        most=2,
    ),
    Row(
        what="the same without a standby",
        part="standby",
        fields=("kill_without_standby_first_s",),
        unit=" s",
    ),
)

_COLUMNS = ("what", "to reach", "measured", "reached")
_CONTESTANTS = ("the tally by", "records/s", "rounds")


def number(value: float | None) -> str:
    """*value* as people read it."""
    if value is None:
        return NOT_YET
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}".rstrip("0")


def contestants(results: Results) -> list[tuple[str, str, str]]:
    """Who did the tally, how fast, and the rates of all rounds; the fastest first."""
    measured = results.parts.get("peers")
    lines = [line for line in (measured.lines if measured else []) if line["kind"] == "contestant"]
    lines.sort(key=lambda line: -(line["records_per_s"] or 0))
    return [
        (
            line["contestant"],
            number(line["records_per_s"]) if line["records_per_s"] else line.get("error", "failed"),
            ", ".join("failed" if rate is None else number(rate) for rate in line.get("rounds", [])),
        )
        for line in lines
    ]


def machine() -> str:
    """What the figures were measured on."""
    names = re.findall(r"^model name\s*: (.*)$", _cpus(), re.MULTILINE)
    python = f"Python {platform.python_version()}"
    cores = f"{os.cpu_count()} cores ({names[0] if names else platform.machine()})"
    return f"{cores}, {python}, Kafka {KAFKA_VERSION}"


def _cpus() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""


def markdown(results: Results) -> str:
    """The README's tables."""
    days = sorted({part.at for part in results.parts.values()})
    parts = [_table(_COLUMNS, [row.cells(results) for row in ROWS])]
    if days:
        parts.append(f"Measured {' to '.join(sorted({days[0], days[-1]}))} on {machine()}.")
    if contestants(results):
        parts.append(_table(_CONTESTANTS, contestants(results)))
    return "\n\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruled = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(row)} |".replace("  |", " |") for row in ruled)


def printed(results: Results) -> str:
    """The tables for the terminal."""
    blocks: list[Callable[[], tuple[Sequence[str], Sequence[Sequence[str]]]]] = [
        lambda: (_CONTESTANTS, contestants(results)),
        lambda: (_COLUMNS, [row.cells(results) for row in ROWS]),
    ]
    return "\n\n".join(_aligned(*block()) for block in blocks)


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    )


def put_into_readme(results: Results, parts: Sequence[str], readme: Path = README) -> str:
    """Put the tables into *readme* where all *parts* were measured; what was done, in words."""
    missing = [name for name in parts if name not in results.parts]
    if missing:
        return f"{readme.name} stays as it is: not measured here: {', '.join(missing)}"
    text = readme.read_text()
    readme.write_text(_BLOCK.sub(lambda found: f"{found[1]}\n{markdown(results)}\n{found[2]}", text))
    return f"{readme.name} has these figures now"


if __name__ == "__main__":
    print(printed(load()))
    print(put_into_readme(load(), sorted({row.part for row in ROWS})))
