"""docs/dead-letters.md against the code: its commands parse, its tables are complete."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli import application
from pipeline.cli.redrive import How
from pipeline.runtime import dead_letters, decisions, letters, overtaken
from pipeline.topics import load

PAGE = (Path(__file__).parents[2] / "docs" / "dead-letters.md").read_text()
COMMANDS = re.findall(r"^\$ pipeline (.+?)(?:\s+#.*)?$", PAGE, re.MULTILINE)
DAY_MS = 86_400_000


def texts(source: object) -> set[str]:
    """Every text within *source*, docstrings included."""
    tree = ast.parse(inspect.getsource(source).lstrip())  # type: ignore[arg-type]
    return {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_is_understood(line: str) -> None:
    """Each can be copied: the command line takes all of its words."""
    words = shlex.split(line)
    command, bound, *_ = application(words).parse_args(words, exit_on_error=False, print_error=False)
    assert command.__module__ in ("pipeline.cli.dlq", "pipeline.cli.redrive")
    assert bound.arguments or line.endswith(("list", "status"))


def test_every_command_is_shown() -> None:
    """All of what `pipeline dlq` can do is there at least once."""
    shown = {line.split()[1] for line in COMMANDS}
    assert shown == {"list", "show", "edit", "redrive", "discard", "status", "pause", "resume", "cancel"}


def test_every_header_is_told() -> None:
    """The table has each header that a dead letter may have, and no other."""
    table = PAGE.partition("## What a letter remembers")[2].partition("##")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in row.split(", ")}
    used = {name for name in texts(dead_letters) if re.fullmatch(r"dl_[a-z_]+", name)}
    assert {name.strip("`") for name in told} == used


def test_every_obstacle_is_told() -> None:
    """The table has each reason for which a letter cannot be put back, and no other."""
    told = set(re.findall(r"^\| `([^`]+)` \| ", PAGE.partition("cannot be put back")[2], re.MULTILINE))
    given = {text for text in texts(decisions.obstacle) if " " in text and not text.startswith("Why")}
    assert {each for each in told if not each.startswith("dl_")} == given


def test_every_field_of_an_attempt_is_told() -> None:
    """What `dl_history` holds are the fields of an attempt, in their order."""
    row = re.search(r"`dl_history` \| .*?: (.*?); of many", PAGE)
    assert row is not None
    assert re.findall(r"`(\w+)`", row[1]) == list(dead_letters.Attempt.__struct_fields__)


def test_the_numbers_of_the_page_are_the_codes() -> None:
    """Cap, rate, retention, the name of the lock, and how far order is looked into."""
    topics = load()
    assert f"`--limit` ({How().limit:,})" in PAGE
    assert f"`--rate` ({How().rate} a second)" in PAGE
    assert f"kept {(topics['audit'].retention_ms or 0) // DAY_MS} days" in PAGE
    assert f"{(topics['dead-letters'].retention_ms or 0) // DAY_MS} days after they were received" in PAGE
    assert f"`<application id>.job.{letters.lock()}`" in PAGE
    assert f"({overtaken.MAX_RECORDS:,} records are looked at)" in PAGE
