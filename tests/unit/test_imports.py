"""
Dependencies point one way: ``stages → events, stage`` ← ``runtime`` ← ``cli``.

The rules are the table below; the imports are read from the source, those inside functions included.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipeline"


class Import(NamedTuple):
    """One import: the module that has it, where, and what it imports (full dotted name)."""

    importer: str
    line: int
    imported: str


class Rule(NamedTuple):
    """
    What a part of the package may import of the project, and of what is outside of it.

    *allowed* None is everything but *forbidden*; names stand for themselves and all below them.
    """

    part: str
    allowed: tuple[str, ...] | None
    forbidden: tuple[str, ...]
    because: str


IO = (
    "aiokafka",
    "aiohttp",
    "asyncio",
    "structlog",
    "logging",
    "socket",
    "time",
    "threading",
    "rocksdict",
    "yaml",
)
CORE = ("pipeline.events", "pipeline.errors", "pipeline.instants", "pipeline.stage")

RULES = (
    Rule(
        "pipeline.stages",
        (*CORE, "pipeline.identity", "pipeline.histogram", "pipeline.windows", "pipeline.stages"),
        IO,
        "a stage is pure: it neither awaits, logs, reads a clock nor knows Kafka or settings",
    ),
    Rule(
        "pipeline.events",
        ("pipeline.events", "pipeline.instants"),
        IO,
        "the wire contract depends on nothing",
    ),
    Rule("pipeline.stage", ("pipeline.instants",), IO, "the contract of core and runtime depends on neither"),
    Rule("pipeline.instants", (), IO, "times are plain values"),
    Rule("pipeline.errors", (), IO, "everything may import the tree of errors"),
    Rule("pipeline.identity", (), IO, "keys are a function of values and the secret"),
    Rule("pipeline.histogram", CORE, IO, "a histogram is a plain value"),
    Rule("pipeline.windows", CORE, IO, "a window is a plain value"),
    Rule(
        "pipeline.codec",
        None,
        ("pipeline.runtime", "pipeline.settings", *IO),
        "bytes and events, no input or output",
    ),
    Rule(
        "pipeline.settings",
        ("pipeline.errors", "pipeline.settings_source"),
        ("aiokafka", "aiohttp"),
        "settings are read first, by whoever starts",
    ),
    Rule("pipeline.logs", (), ("aiokafka", "aiohttp"), "everything may log"),
    Rule(
        "pipeline.topics",
        ("pipeline.checked_yaml", "pipeline.errors", "pipeline.events"),
        ("aiokafka",),
        "a contract",
    ),
    Rule(
        "pipeline.contracts",
        ("pipeline.checked_yaml", "pipeline.errors", "pipeline.events", "pipeline.topics"),
        ("aiokafka", "aiohttp", "asyncio"),
        "what is promised can be told and checked without a cluster or settings",
    ),
    Rule(
        "pipeline.masking",
        ("pipeline.events", "pipeline.logs"),
        IO,
        "what may be shown follows from the types alone",
    ),
    Rule(
        "pipeline.tail",
        None,
        ("aiokafka", "pipeline.stages", "pipeline.sandbox", "pipeline.subscribe"),
        "it looks at records by the runtime's own means",
    ),
    Rule(
        "pipeline.catalogue",
        None,
        ("aiokafka", "aiohttp", "asyncio", "pipeline.runtime", "pipeline.stages"),
        "pages are made without a cluster",
    ),
    Rule("pipeline.checked_yaml", ("pipeline.errors",), ("aiokafka",), "it reads any YAML"),
    Rule(
        "pipeline.runtime",
        None,
        ("pipeline.sandbox", "pipeline.dev", "pipeline.testing"),
        "what runs in production does not depend on what only tries it out",
    ),
    Rule(
        "pipeline.subscribe",
        (*CORE, "pipeline.checked_yaml", "pipeline.codec", "pipeline.headers", "pipeline.topics"),
        ("aiohttp", "rocksdict", "structlog", "yaml"),
        "a subscriber has neither the runtime nor its dependencies",
    ),
    Rule(
        "pipeline.bench",
        None,
        ("aiokafka", "pipeline.sandbox", "pipeline.dev", "pipeline.testing", "pipeline.stages"),
        "it measures the runtime, by the runtime's own means",
    ),
    Rule(
        "pipeline.clients",
        None,
        ("pipeline.runtime", "pipeline.stages", "pipeline.sources", "aiokafka"),
        "HTTP only",
    ),
    Rule(
        "pipeline.sources",
        None,
        ("aiokafka", "pipeline.stages"),
        "a source reaches Kafka by what it is given",
    ),
    Rule("pipeline.sinks", None, ("aiokafka", "pipeline.stages"), "a sink reaches Kafka by what it is given"),
    Rule(
        "pipeline.sandbox",
        None,
        (
            "pipeline.events",
            "pipeline.codec",
            "pipeline.identity",
            "pipeline.clients",
            "pipeline.stages",
            "pipeline.histogram",
            "pipeline.windows",
            "pipeline.sources",
            "pipeline.sinks",
            "pipeline.topology",
            "pipeline.testing",
            "pipeline.runtime",
        ),
        "sandbox and oracle can disagree with the pipeline only if they share none of its code",
    ),
)

KAFKA_CLIENTS = ("pipeline.runtime", "pipeline.subscribe")


def sources() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """The dotted name of the module in *path*."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(importer: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """All imports of *source*; ``from a import b`` counts as ``a.b``, relative ones are resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(importer, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                keep = len(importer.split(".")) - node.level + is_package
                module = ".".join([*importer.split(".")[:keep], *([module] if module else [])])
            yield from (Import(importer, node.lineno, f"{module}.{alias.name}") for alias in node.names)


ALL = [
    found
    for path in sources()
    for found in imports(module_of(path), path.read_text(), is_package=path.name == "__init__.py")
]


def within(name: str, part: str) -> bool:
    """Whether *name* is *part* or below it."""
    return name == part or name.startswith(f"{part}.")


def violations(rule: Rule, found: list[Import]) -> list[str]:
    """What of *found* breaks *rule*, each told with its place and the reason of the rule."""
    broken = []
    for each in (each for each in found if within(each.importer, rule.part)):
        ours = within(each.imported, "pipeline") and not within(each.imported, rule.part)
        refused = any(within(each.imported, part) for part in rule.forbidden)
        stranger = (
            ours and rule.allowed is not None and not any(within(each.imported, a) for a in rule.allowed)
        )
        if refused or stranger:
            broken.append(f"{each.importer}:{each.line} imports {each.imported}: {rule.because}")
    return broken


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.part)
def test_a_part_imports_only_what_it_may(rule: Rule) -> None:
    """No module of the part imports what its rule forbids."""
    assert violations(rule, ALL) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.part)
def test_a_rule_is_about_something(rule: Rule) -> None:
    """The part that a rule names exists, so that a renamed one does not escape."""
    assert any(within(module_of(path), rule.part) for path in sources())


def test_only_the_runtime_and_subscribers_know_the_kafka_client() -> None:
    """``aiokafka`` is imported in runtime and subscribe alone."""
    known = [
        e
        for e in ALL
        if within(e.imported, "aiokafka") and not any(within(e.importer, k) for k in KAFKA_CLIENTS)
    ]
    assert known == []


def test_nobody_imports_the_command_line() -> None:
    """The command line stands at the end: only its own modules import it."""
    ends = ("pipeline.cli", "pipeline.__main__")
    found = [each for each in ALL if within(each.imported, "pipeline.cli")]
    assert [each for each in found if not any(within(each.importer, end) for end in ends)] == []


def test_mocks_are_used_nowhere() -> None:
    """Fakes are real: neither the package nor its tests import ``unittest.mock``."""
    tests = [
        found for path in (ROOT / "tests").rglob("*.py") for found in imports(path.stem, path.read_text())
    ]
    assert [found for found in [*ALL, *tests] if within(found.imported, "unittest.mock")] == []


@pytest.mark.parametrize(
    "line",
    [
        "import aiokafka",
        "def f():\n    from aiohttp import web",
        "from pipeline import settings",
        "from pipeline.settings import Settings",
        "from .. import cli",
        "from ..runtime.batch import Batch",
    ],
)
def test_a_forbidden_import_is_found(line: str) -> None:
    """The walk sees every form of import: plain, inside functions, of a module by name, relative."""
    found = list(imports("pipeline.stages.enrich", line))
    assert violations(RULES[0], found) != []


def test_an_allowed_import_is_left_alone() -> None:
    """What a stage needs is not refused."""
    line = "from pipeline.events import Message\nimport msgspec\nfrom pipeline.stages import measures"
    assert violations(RULES[0], list(imports("pipeline.stages.rollup", line))) == []
