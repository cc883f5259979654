"""docs/replay.md: its commands are the program's, its headers those that are written."""

import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli import application
from pipeline.headers import EFFECTS, REPLAY
from pipeline.runtime.live_lag import TOLERATED_S

TEXT = (Path(__file__).parents[2] / "docs" / "replay.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every command of a code block, without what is said of it."""
    blocks = re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    plain = [re.split(r"  +(?=[a-z])", line.strip())[0] for line in lines if line.startswith("pipeline ")]
    return [line.replace(" [ID]", "").replace("ID", "5f0c2a91") for line in plain]


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_page_is_understood(command: str) -> None:
    """Each is a command with options that it has."""
    _, *words = shlex.split(command)
    function, bound, *_ = application(words).parse_args(words, exit_on_error=False, print_error=False)
    assert callable(function)
    assert bound is not None


def test_every_command_is_on_the_page() -> None:
    """Whatever `pipeline replay` can do, the page shows how."""
    told = {shlex.split(command)[2] for command in commands()}
    assert told == {"plan", "start", "status", "pause", "resume", "cancel", "diff", "promote", "drop"}


def test_the_headers_are_those_that_are_written() -> None:
    """The names on the page are the names in the records."""
    assert f"`{REPLAY}`" in TEXT
    assert f"`{EFFECTS}`" in TEXT
    assert f"more than {TOLERATED_S:g} s above" in TEXT
