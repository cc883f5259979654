"""What a run of chaos comes to: what the oracle found, and what of it was lost or doubled."""

from collections.abc import Mapping
from typing import Any, Final

from pipeline.sandbox.oracle import Report

__all__ = ["DOUBLED", "ENOUGH", "LOST", "judged"]

#: Checks of the oracle whose mismatches are things that happened and that the pipeline does not tell.
LOST: Final = frozenset({"message fact missing", "conversation fact", "opt change missing"})

#: Checks whose mismatches are things told twice.
DOUBLED: Final = frozenset(
    {"message fact twice", "activity twice", "posted window twice", "window's revisions"}
)

#: Fewer comparisons prove nothing: hardly anything has reached the pipeline.
ENOUGH: Final = 1_000


def judged(report: Report, repeated: Mapping[str, int]) -> dict[str, Any]:
    """
    The verdict as fields of the summary; ``passed`` also wants that enough was compared.

    *repeated* are records that stand twice, by topic: each is doubled, and a mismatch as well.
    What is ``uncovered`` is told, and fails nothing: a machine may be too slow for windows to close in time.
    """
    counts = report.failed_checks
    twice = sum(repeated.values())
    mismatches = report.mismatches + twice
    return {
        "compared": report.compared,
        "lost": sum(count for check, count in counts.items() if check in LOST),
        "doubled": twice + sum(count for check, count in counts.items() if check in DOUBLED),
        "mismatches": mismatches,
        "passed": mismatches == 0 and report.compared >= ENOUGH,
        "failed_checks": {**counts, **{f"{topic} twice": count for topic, count in repeated.items()}},
        "examples": report.examples,
        "uncovered": report.uncovered,
        "dead_letters": report.dead_letters,
    }
