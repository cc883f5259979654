"""docs/erasure.md against the code: its commands parse, its tables are complete, its report is one."""

import re
import shlex
from pathlib import Path
from typing import get_args

import msgspec
import orjson
import pytest

from pipeline import topology
from pipeline.cli import application
from pipeline.identity import Identity
from pipeline.runtime.erasure import Kind, places_of
from pipeline.runtime.erasure_report import Report
from pipeline.settings import Settings
from pipeline.topics import load

PAGE = (Path(__file__).parents[2] / "docs" / "erasure.md").read_text()
COMMANDS = re.findall(r"^\$ pipeline (.+)$", PAGE, re.MULTILINE)
PLACES = places_of(load(), "app", [unit.stage for unit in topology.units(Settings(), Identity(b""))])


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_is_understood(line: str) -> None:
    """Each can be copied: the command line takes all of its words."""
    words = shlex.split(line)
    command, bound, *_ = application(words).parse_args(words, exit_on_error=False, print_error=False)
    assert command.__module__ == "pipeline.cli.erase"
    assert bound.arguments


def rows() -> dict[str, set[str]]:
    """Kind -> the places that its row names."""
    found = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    return {kind: set(re.findall(r"`([a-z.]+)`", where)) for kind, where in found}


def test_every_kind_is_told() -> None:
    """The table has each kind of place, and no other."""
    assert set(rows()) == set(get_args(Kind)) == {place.kind for place in PLACES}


@pytest.mark.parametrize("kind", ["polled", "kept"])
def test_the_exceptions_are_named_one_by_one(kind: str) -> None:
    """What is not removed at once, and does not expire, stands in the table under its name."""
    named = {
        place.topic.removeprefix("app.").removesuffix(".changelog") for place in PLACES if place.kind == kind
    }
    assert rows()[kind] == named


def test_the_report_that_is_shown_is_one() -> None:
    """It has the fields of a report, all of them and no other."""
    shown = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    told = orjson.loads(shown[1])
    assert set(told) - {"signature"} == set(Report.__struct_fields__)
    assert msgspec.convert({k: v for k, v in told.items() if k != "signature"}, Report).complete
