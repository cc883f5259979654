"""What a subscriber imports works with the base install: no extra, no settings, no runtime."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[2]

#: What a subscriber imports: all that the README and docs/subscribe.md name, and the driver for tests.
MODULES = (
    "pipeline",
    "pipeline.codec",
    "pipeline.contracts.schemas",
    "pipeline.errors",
    "pipeline.events",
    "pipeline.histogram",
    "pipeline.instants",
    "pipeline.stage",
    "pipeline.subscribe",
    "pipeline.testing",
    "pipeline.topics",
)


def base_distributions() -> set[str]:
    """The distributions that the base install asks for, by normalised name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {normalised(re.split(r"[^\w.-]", each, maxsplit=1)[0]) for each in project["dependencies"]}


def normalised(name: str) -> str:
    """*name* as package registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def file_of(module: str) -> Path | None:
    """The source of *module*, None if it is no module of ours."""
    place = ROOT / Path(*module.split("."))
    found = (place / "__init__.py", place.with_suffix(".py"))
    return next((path for path in found if path.exists()), None)


def imported(source: Path) -> Iterator[str]:
    """Every absolute import of *source*, with each name that it takes from there; relative ones are none."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: a relative import escapes this walk"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def with_parents(module: str) -> Iterator[str]:
    """*module* and the packages that importing it imports."""
    parts = module.split(".")
    yield from (".".join(parts[: count + 1]) for count in range(len(parts)))


def reached(start: str) -> dict[str, str]:
    """All modules that importing *start* may import, each with who imports it."""
    found, waiting = {start: "the subscriber"}, [start]
    while waiting:
        module = waiting.pop()
        source = file_of(module)
        for name in imported(source) if source else ():
            for each in with_parents(name):
                if each not in found and (file_of(each) or not each.startswith("pipeline")):
                    found[each] = module
                    waiting.append(each)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_subscribers_module_needs_base_dependencies_only(module: str) -> None:
    """Whatever the module imports, however far away, is ours, Python's, or in the base install."""
    owners = packages_distributions()
    foreign = {
        name.split(".")[0]: by for name, by in reached(module).items() if not name.startswith("pipeline")
    }
    missing = {
        name: by
        for name, by in foreign.items()
        if name not in sys.stdlib_module_names
        and not base_distributions() & {normalised(owner) for owner in owners.get(name, ())}
    }
    assert missing == {}


def test_the_walk_finds_what_an_extra_brings() -> None:
    """A module that needs an extra is seen to, also through others."""
    assert "phonenumbers" in reached("pipeline.topology")


@pytest.mark.parametrize("name", pipeline.__all__)
def test_a_public_name_is_there(name: str) -> None:
    """Each name of ``__all__`` can be imported, and is documented where it comes from."""
    assert getattr(pipeline, name).__doc__


def test_a_name_that_is_none_is_refused_as_python_does() -> None:
    """A misspelt name is an `AttributeError` that names it."""
    with pytest.raises(AttributeError, match="Codex"):
        pipeline.Codex  # type: ignore[attr-defined]  # noqa: B018


def test_all_is_what_is_promised() -> None:
    """``__all__`` and the places of the names are the same list, and dir shows them."""
    assert set(pipeline.__all__) == set(pipeline._PLACES)
    assert set(pipeline.__all__) <= set(dir(pipeline))
