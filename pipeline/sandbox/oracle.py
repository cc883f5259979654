"""
START HERE: the independent proof that the pipeline did what it says, without any of the pipeline's code.

`verify` reckons from the ledger, in SQL, every fact, every measure of every window and every contact's tags,
and compares them with what a fresh read_committed consumer read from the topics in `READS` and with what the
Users API's sandbox holds at the end (`holdings`). It must be called when the traffic has stopped and
everything is drained. The reader is the caller's: records come as plain mappings, see `oracle_records`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.sandbox.ledger import wall_ms
from pipeline.sandbox.oracle_contacts import check_contacts, check_truth
from pipeline.sandbox.oracle_facts import check_facts
from pipeline.sandbox.oracle_measures import check_measures
from pipeline.sandbox.oracle_posted import check_posted, check_totals, holdings
from pipeline.sandbox.oracle_records import MEASURES, READS, rows_of
from pipeline.sandbox.oracle_tables import Database, OracleSettings, opened

__all__ = ["READS", "OracleSettings", "Report", "holdings", "verify"]

#: mismatches that a report shows
_EXAMPLES: Final = 20
#: the kinds of dimensions there are
DIMENSION_KINDS: Final = ("all", "tag:id", "tag:name", "job", "campaign", "template", "number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the oracle found; ``examples`` name no person."""

    compared: int
    mismatches: int
    examples: list[dict[str, str | None]]
    checks: dict[str, int]  #: how much each check looked at
    failed_checks: dict[str, int]  #: mismatches of those that found any
    nonzero: dict[str, int]  #: windows above zero, per measure and per kind of dimension
    windows: int
    closed_windows: int
    late: int
    unobservable_opts: int
    dead_letters: dict[str, int]  #: by stage and reason

    @property
    def uncovered(self) -> list[str]:
        """What the run did not show, so that agreement on it proves nothing."""
        lacking = [name for name, count in self.nonzero.items() if not count]
        if self.compared < 1_000:
            lacking.append("1,000 comparisons")
        if not self.closed_windows:
            lacking.append("closed windows")
        if not self.late:
            lacking.append("late facts")
        return lacking

    @property
    def passed(self) -> bool:
        """No mismatch, and enough was seen."""
        return self.mismatches == 0 and not self.uncovered

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "uncovered": self.uncovered, "passed": self.passed}


def verify(
    ledger: Path,
    records: Iterable[Mapping[str, Any]],
    *,
    identity_secret: bytes,
    settings: OracleSettings,
    held: Iterable[Mapping[str, Any]] | None = None,
    now_ms: int | None = None,
) -> Report:
    """
    Compare the pipeline's *records* with the ledger in the directory *ledger*.

    Args:
        identity_secret: what the pipeline derives contact keys from.
        held: what the Users API's sandbox holds, see `holdings`; None: that is not compared.
        now_ms: when the topics were read, ms since 1970; default: now.

    Raises:
        ConfigError: *ledger* holds no ledger.
    """
    rows = rows_of(records)
    at_ms = wall_ms() if now_ms is None else now_ms
    with opened(ledger, rows, identity_secret=identity_secret, settings=settings, now_ms=at_ms) as database:
        for check in (check_facts, check_measures, check_totals, check_contacts, check_truth):
            check(database)
        if held is not None:
            check_posted(database, held)
        return _report(database)


def _report(database: Database) -> Report:
    examples = database.run(
        "SELECT kind, what, expected, actual FROM mismatches "
        "QUALIFY row_number() OVER (PARTITION BY kind ORDER BY what) <= 3 LIMIT $examples",
        examples=_EXAMPLES,
    ).fetchall()
    return Report(
        compared=_number(database, "SELECT sum(number) FROM compared"),
        mismatches=_number(database, "SELECT count(*) FROM mismatches"),
        examples=[dict(zip(("check", "what", "expected", "actual"), row, strict=True)) for row in examples],
        checks=_counts(database, "SELECT kind, sum(number) FROM compared GROUP BY kind ORDER BY kind"),
        failed_checks=_counts(database, "SELECT kind, count(*) FROM mismatches GROUP BY kind ORDER BY kind"),
        nonzero=_nonzero(database),
        windows=_number(database, "SELECT count(*) FROM published"),
        closed_windows=_number(database, "SELECT count(*) FROM published WHERE closed"),
        late=_number(database, "SELECT count(*) FROM late_told"),
        unobservable_opts=_number(database, "SELECT count(*) FROM opt_changes WHERE NOT is_accepted"),
        dead_letters=_counts(
            database,
            "SELECT stage || ': ' || reason AS kind, count(*) FROM dead_letters GROUP BY kind ORDER BY kind",
        ),
    )


def _nonzero(database: Database) -> dict[str, int]:
    above = ", ".join(f"count(*) FILTER ({name} > 0)" for name in MEASURES)
    others = "count(*) FILTER (cost::DECIMAL(28, 10) > 0), count(*) FILTER (cardinality(reply_seconds) > 0)"
    names = (*MEASURES, "cost", "reply_seconds")
    counts = database.run(f"SELECT {above}, {others} FROM published").fetchall()[0]  # noqa: S608
    kinds = [
        _number(
            database,
            "SELECT count(*) FROM published WHERE (sent > 0 OR received > 0) "
            "AND (dimension = $kind OR starts_with(dimension, $kind || ':'))",
            kind=kind,
        )
        for kind in DIMENSION_KINDS
    ]
    return dict(zip((*names, *DIMENSION_KINDS), (*counts, *kinds), strict=True))


def _number(database: Database, query: str, **values: Any) -> int:
    row = database.run(query, **values).fetchone()
    return int(row[0] or 0) if row else 0


def _counts(database: Database, query: str) -> dict[str, int]:
    return {str(name): int(number) for name, number in database.run(query).fetchall()}
