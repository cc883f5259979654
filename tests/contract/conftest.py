"""Contract tests need the vendors' documents; without them they say so in one line, and CI refuses."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.sandbox_world import World, open_world
from tests.contract.vendor_docs import docs_dir

_LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs the vendors' documents where there are none; fail in CI instead."""
    if docs_dir() is not None:
        return
    needing = [item for item in items if "vendor_docs" in getattr(item, "fixturenames", ())]
    if needing and os.environ.get("CI"):
        raise pytest.UsageError("CI needs the vendors' documents: set PIPELINE_VENDOR_DOCS to their folder")
    config.stash[_LEFT_OUT] = len(needing)
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out."""
    if left_out := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(
            f"left out: {left_out} contract tests; PIPELINE_VENDOR_DOCS names no folder of vendors' documents"
        )


@pytest.fixture
def vendor_docs() -> Path:
    """The folder of the vendors' documents."""
    folder = docs_dir()
    assert folder is not None, "tests without the documents are deselected"
    return folder


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """Both sandboxes listening, with one of each resource and tokens for both."""
    async with open_world() as opened:
        yield opened
