"""docs/contracts.md against the rules: all are told, and the example is what is printed."""

import re
from pathlib import Path

from pipeline.cli.contracts import _told
from pipeline.contracts.breaches import Breach, Rule

DOCS = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()


def test_every_rule_is_told() -> None:
    """Whoever sees a rule in CI finds it on the page, and no rule is told that there is none of."""
    rules = DOCS.partition("## What may change")[2]
    told = re.findall(r"^\| `([a-z-]+)` \|.*\|.*\|$", rules, re.MULTILINE)
    assert sorted(told) == sorted(rule.value for rule in Rule)


def test_the_example_is_what_is_printed() -> None:
    """The lines that are shown are those of the command."""
    breach = Breach(
        subject="users.tag.v1",
        path="colour",
        rule=Rule.RENAMED,
        told="is now called color",
        releases=("1.0.0",),
    )
    assert _told(breach) in DOCS


def test_every_keyword_of_ours_is_told() -> None:
    """What stands in a schema and in no specification is explained."""
    made = (Path(__file__).parents[2] / "pipeline" / "contracts" / "1.0.0").glob("*.v1.json")
    used = {word for file in made for word in re.findall(r'"(x-[a-z-]+)":', file.read_text())}
    assert used == set(re.findall(r"^\| `(x-[a-z-]+)` \|", DOCS, re.MULTILINE))
