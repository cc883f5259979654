"""``docs/backfill.md`` against the code: commands, options, resources, numbers."""

import re
from dataclasses import fields
from pathlib import Path

from pipeline.cli.backfill import History, app
from pipeline.clients import limits
from pipeline.settings import Settings
from pipeline.sources import backfill
from pipeline.sources.history import RESOURCES

PAGE = (Path(__file__).parents[2] / "docs" / "backfill.md").read_text()
TABLE = re.findall(r"^\| `(.+?)` \| (.+?) \|$", PAGE, re.MULTILINE)


def test_every_command_is_shown_and_exists() -> None:
    """The table's words are the command line's."""
    shown = {word for line, _ in TABLE for word in re.findall(r"(?:backfill |, `)([a-z]+)", line)}
    shown |= set(re.findall(r"`backfill ([a-z]+)", PAGE)) | set(re.findall(r"`, `([a-z]+) ID`", PAGE))
    assert shown == {name for name in app if not name.startswith("-")}


def test_every_option_is_shown() -> None:
    """Of those that say what is fetched, none is missing."""
    told = " ".join(line for line, _ in TABLE)
    assert [field.name for field in fields(History) if f"--{field.name}" not in told] == []


def test_every_resource_is_told_of_with_its_product() -> None:
    """By the name that ``--resources`` takes."""
    rows = dict(TABLE)
    for product, names in RESOURCES.items():
        assert [name for name in names if name not in rows[f"backfill {product}"]] == []


def test_the_numbers_are_those_of_the_code() -> None:
    """Days, shares, tries and how many accounts at a time."""
    settings = Settings()
    assert f"`decode.seen_days` ({settings.decode.seen_days})" in PAGE
    assert settings.backfill.share == 1 / 4
    assert "`backfill.share` (a quarter)" in PAGE
    assert settings.backfill.reserve == 1 / 2
    assert "`backfill.reserve` (half)" in PAGE
    assert limits.LOOK_AGAIN_S == 15 * 60
    assert "a quarter of an hour" in PAGE
    assert f"tried {backfill._TRIES} times" in PAGE
    assert backfill.WORKERS == 4
    assert "Four accounts are fetched at a time" in PAGE
    assert f"more than {settings.poll.max_pages:,} pages" in PAGE
