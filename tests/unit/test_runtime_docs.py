"""``docs/runtime.md`` against the code: every name it mentions exists, every bound has that value."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.runtime.metrics import Metrics
from tests.unit.settings_table import rows

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "runtime.md").read_text()
SOURCE = "\n".join(file.read_text() for file in (ROOT / "pipeline").rglob("*.py"))
QUOTED = set(re.findall(r"`([^`\n]+)`", PAGE))
BOUNDS = re.findall(r"^\| [^|]+ \| ([\d.]+)[^|]* \| `([\w.]+)\.(\w+)` \|$", PAGE, re.MULTILINE)


def test_the_settings_of_the_page_exist() -> None:
    """What looks like a setting of the runtime is one."""
    settings = {name for name, *_ in rows()}
    told = {name for name in QUOTED if re.fullmatch(r"(runtime|receiver|admin)\.\w+", name)}
    assert told - settings == set()
    assert {"runtime.watchdog_s", "runtime.on_error", "runtime.stop_timeout_s"} <= told


def test_the_metrics_of_the_page_exist() -> None:
    """What looks like a metric is one."""
    families = Metrics().registry.collect()
    known = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    told = {name for name in QUOTED if name.startswith("pipeline_")}
    assert told <= known
    assert told


def test_the_log_events_of_the_page_exist() -> None:
    """What looks like an event of the log is logged somewhere, under just that name."""
    section = PAGE.partition("## What the log says")[2]
    told = set(re.findall(r"`([a-z]+\.[a-z_]+)`", section))
    told |= {
        name for name in QUOTED if re.fullmatch(r"(stage|group|task|store|kafka|worker|record)\.\w+", name)
    }
    assert {name for name in told if f'"{name}"' not in SOURCE} == set()
    assert len(told) > 10


@pytest.mark.parametrize(("value", "module", "name"), BOUNDS, ids=lambda text: text)
def test_a_bound_is_what_the_page_says(value: str, module: str, name: str) -> None:
    """The number of the table is the constant's."""
    assert float(getattr(import_module(module), name)) == float(value)


def test_the_page_tells_all_of_its_bounds() -> None:
    """Every row of the table was understood."""
    table = PAGE.partition("## Bounds")[2].partition("##")[0]
    assert len(BOUNDS) == table.count("\n| ") - 1


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_a_link_leads_somewhere(link: str) -> None:
    """Pages beside this one."""
    assert (ROOT / "docs" / link).is_file()
