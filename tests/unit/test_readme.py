"""The README against what there is: topics.yaml, the topology, the command line, the Makefile, the files."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline import topology
from pipeline.cli import COMMANDS
from pipeline.identity import Identity
from pipeline.preflight import NAMES
from pipeline.settings import Settings
from pipeline.topics import Topic, load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DAY_MS = 86_400_000

#: The words of every command that the README shows, without the prompt and the comment.
COMMAND_LINES = re.findall(r"^\$ (?:\.venv/bin/)?(.+?)(?:\s+#.*)?$", README, re.MULTILINE)


def cell(text: str) -> str:
    """*text* as it stands in a table's cell."""
    return text.replace("|", r"\|")


def kept(topic: Topic) -> str:
    """How long records of *topic* are kept, in words."""
    days = f"{(topic.retention_ms or 0) // DAY_MS} days"
    if not topic.is_table:
        return days
    return "last of each key" if topic.retention_ms is None else f"last of each key, {days}"


def table() -> str:
    """The table of public topics as it should be."""
    rows = [
        f"| `{topic.name}` | {cell(topic.description)} | {cell(topic.key)} | {kept(topic)} |"
        for topic in load().values()
        if topic.visibility == "public"
    ]
    return "\n".join(["| topic | what stands there | key | kept |", "|---|---|---|---|", *rows])


def test_the_table_of_topics_is_that_of_topics_yaml() -> None:
    """Every public topic has its row; where this fails, the expected table is what is to be put in."""
    shown = re.search(r"<!-- topics:.*?-->\n(.*?)\n<!-- /topics -->", README, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == table()


def test_internal_topics_are_named_as_such() -> None:
    """Whoever lists a cluster's topics finds each of them in the README, public or internal."""
    internal = [name for name, topic in load().items() if topic.visibility == "internal"]
    assert [name for name in internal if f"`{name}`" not in README and not name.endswith(".redrive")] == []
    assert "`.redrive`" in README


def picture() -> str:
    """The picture of the flow."""
    found = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_picture_shows_every_part_and_topic() -> None:
    """What reads and writes, and every topic that it reads and writes, is in the picture."""
    units = topology.units(Settings(), Identity(b""))
    wanted = {unit.stage.name for unit in units} | {"receiver", "dead-letters"}
    wanted |= {topic for unit in units for topic in unit.stage.outputs}
    wanted |= {topic for unit in units if unit.reads for topic in unit.stage.inputs}
    # A copy of users.tags for each partition: the arrow from broadcast to enrich.
    assert sorted(name for name in wanted - {"users.tags.by-partition"} if name not in picture()) == []


def test_the_picture_shows_nothing_else() -> None:
    """Whatever looks like a topic in the picture is one."""
    shown = set(re.findall(r"[a-z]+\.[a-z.]+", picture()))
    assert shown - set(load()) == set()


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_that_is_shown_exists(line: str) -> None:
    """A shown command is one of the command line, of the Makefile, or pip."""
    program, command, *_ = line.split()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {"make": targets, "pip": ["install"], "pipeline": [*COMMANDS]}
    assert command in known[program]
    assert program != "pipeline" or find_spec(COMMANDS[command][0].partition(":")[0])


def test_commands_are_shown_at_all() -> None:
    """The two first commands of a new user are among what the checks look at."""
    assert {"make demo", "make test"} <= set(COMMAND_LINES)


def test_parts_named_for_only_exist() -> None:
    """What ``--only`` is shown with can be given to it."""
    given = re.findall(r"--only ([a-z,]+)", README)
    assert given
    assert {name for names in given for name in names.split(",")} <= set(NAMES)


@pytest.mark.parametrize(
    "file", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_a_link_leads_somewhere(file: str) -> None:
    """Links to files of the repository lead to what is there."""
    source = ROOT / file
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", source.read_text())
    assert [target for target in targets if not (source.parent / target).exists()] == []


def test_settings_that_are_named_exist() -> None:
    """The settings, ports and periods that the README tells are those of the code."""
    settings = Settings()
    assert f"{settings.decode.seen_days} days (`decode.seen_days`)" in README
    assert f"grace ({settings.engagement.grace_s * 1000 // DAY_MS} days)" in README
    assert f"port, {settings.admin.port}," in README
