"""``docs/settings.md`` and ``docs/metrics.md`` tell of everything there is."""

import re
from pathlib import Path

import pytest

from pipeline.runtime.metrics import Metrics
from tests.unit.settings_table import FILE, rows, table, unit

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_settings_table_is_that_of_the_settings() -> None:
    """Fields, defaults, units and meanings agree; `python -m tests.unit.settings_table` writes them."""
    assert FILE.read_text() == table()


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row[0])
def test_every_setting_says_what_it_means(row: tuple[str, str, str, str]) -> None:
    """No field is without a meaning."""
    assert row[3]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("interval_s", "s"),
        ("session_timeout_ms", "ms"),
        ("max_body_bytes", "bytes"),
        ("requests_per_10_s", "requests"),
        ("requests_per_s", "requests"),
        ("seen_days", "days"),
        ("host", ""),
    ],
)
def test_a_unit_follows_from_the_name(name: str, wanted: str) -> None:
    """Units stand in names."""
    assert unit(name) == wanted


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    """Names, labels and order are those of the registry."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", METRICS.read_text(), re.MULTILINE)
    found = {family.name: family.type for family in Metrics().registry.collect()}
    assert {name: kind for name, kind, _ in rows} == {
        f"{name}_total" if kind == "counter" else name: kind for name, kind in found.items()
    }


def test_documented_labels_are_the_metrics_own() -> None:
    """A query written from the page works."""
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| ([^|]*) \|", METRICS.read_text(), re.MULTILINE)
    documented = {name.removesuffix("_total"): tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    made = vars(Metrics()).values()
    labels = {one._name: one._labelnames for one in made if hasattr(one, "_labelnames")}
    assert labels
    assert {name: documented[name] for name in labels} == labels
