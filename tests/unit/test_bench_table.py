"""The table of figures: what it reads, how it tells a bar reached or missed, and its place in the README."""

from pathlib import Path
from typing import Any

import pytest

from tests.bench.__main__ import PARTS
from tests.bench.table import (
    NOT_YET,
    README,
    ROWS,
    Measured,
    Results,
    load,
    markdown,
    printed,
    put_into_readme,
    save,
)

PAGE = "# Title\n\n<!-- bench: here -->\n\nold\n\n<!-- /bench -->\n\nend\n"


def results(**parts: dict[str, Any]) -> Results:
    """Results with the figures of *parts*."""
    return Results(
        parts={
            name: Measured(at="2030-01-10", seconds=1, lines=[{"kind": "bench", **figures}])
            for name, figures in parts.items()
        }
    )


def row(told: str, what: str) -> str:
    """The only line of *told* that begins with *what*."""
    (line,) = [line for line in told.splitlines() if line.startswith(f"| {what}")]
    return line


@pytest.mark.parametrize(
    ("ratio", "reached"), [(5.99, "no"), (6.0, "yes"), (7.1, "yes")], ids=["below", "at", "above"]
)
def test_a_least_is_reached_from_the_bar_on(ratio: float, reached: str) -> None:
    """A figure that has to be large says whether it is large enough."""
    told = row(markdown(results(peers={"of_quix": ratio})), "tally, of Quix")
    assert told.split("|")[4].strip() == reached


@pytest.mark.parametrize(("p99", "reached"), [(250, "yes"), (251, "no")], ids=["at", "above"])
def test_a_most_is_reached_up_to_the_bar(p99: int, reached: str) -> None:
    """A figure that has to be small says whether it is small enough."""
    told = row(
        markdown(results(latency={"p50_ms": 1, "p99_ms": p99})),
        "webhook to `activity.enriched` at 500/s, p99",
    )
    assert told.split("|")[4].strip() == reached


def test_what_was_not_measured_is_told_as_such() -> None:
    """No part has a figure that nobody measured, on the terminal or in the README."""
    assert markdown(Results()).count(NOT_YET) == printed(Results()).count(NOT_YET) == len(ROWS)


def test_a_figure_that_could_not_be_had_is_none() -> None:
    """Where the others did not run, there is no ratio to them."""
    told = markdown(results(peers={"records_per_s": 50_000, "of_quix": None}))
    assert "50,000" in row(told, "tally: records/s")
    assert NOT_YET in row(told, "tally, of Quix")


def test_the_readme_gets_the_tables_between_its_markers(tmp_path: Path) -> None:
    """All around the markers stays, and a second time changes nothing."""
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    measured = results(whole={"records_per_s": 16_000})
    put_into_readme(measured, ["whole"], page)
    once = page.read_text()
    put_into_readme(measured, ["whole"], page)
    assert page.read_text() == once == PAGE.replace("\nold\n", f"\n{markdown(measured)}\n")


def test_the_readme_is_left_alone_until_everything_is_measured(tmp_path: Path) -> None:
    """Figures of a part do not replace a table that has all."""
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    told = put_into_readme(results(whole={"records_per_s": 1}), ["whole", "peers"], page)
    assert (page.read_text(), told) == (PAGE, "README.md stays as it is: not measured here: peers")


def test_results_survive_the_file(tmp_path: Path) -> None:
    """What one run keeps, the next one has."""
    kept = results(whole={"records_per_s": 1.5}, peers={"of_quix": None})
    save(tmp_path / "new" / "results.json", kept)
    assert load(tmp_path / "new" / "results.json") == kept
    assert load(tmp_path / "none.json") == Results()


def test_every_part_has_a_row_and_every_row_a_part() -> None:
    """Nothing is measured that is not shown, and nothing shown that is not measured."""
    assert {each.part for each in ROWS} == set(PARTS)


def test_the_readme_shows_every_bar() -> None:
    """The README's table has each figure and what is to be reached, whatever was measured."""
    shown = [line.split(" | ")[:2] for line in README.read_text().splitlines() if line.startswith("| ")]
    assert [each for each in ROWS if [f"| {each.what}", each.bar] not in shown and each.bar] == []
