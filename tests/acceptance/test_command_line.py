"""The command line as a newcomer meets it: help, mistakes, exit codes."""

from pathlib import Path

import pytest

from pipeline.cli import COMMANDS
from tests.acceptance.programs import ran


async def test_help_lists_every_command() -> None:
    """`pipeline --help` is where one finds what there is."""
    code, output, _ = await ran("--help")
    assert code == 0
    assert [name for name in COMMANDS if name not in output] == []


@pytest.mark.parametrize(
    "command",
    [
        *("dev", "run", "broker", "sandbox", "sandbox verify", "doctor", "chaos"),
        *("dlq list", "dlq show", "dlq edit", "dlq redrive", "dlq discard", "dlq resume"),
    ],
)
async def test_help_shows_examples_and_exit_codes(command: str) -> None:
    """A command's help can be copied from, and tells a script what its end means."""
    code, output, _ = await ran(*command.split(), "--help")
    assert code == 0
    assert "Examples" in output
    assert f"pipeline {command}" in output
    assert "Exit codes" in output


async def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    """A misspelt command costs no search."""
    code, output, errors = await ran("sandbx")
    assert (code, output) == (2, "")
    assert "did you mean 'sandbox'?" in errors


async def test_an_unknown_option_is_refused() -> None:
    """Nothing starts with half of what was asked for."""
    code, _, errors = await ran("dev", "--rates", "5")
    assert code == 2
    assert "--rates" in errors


async def test_run_lists_all_that_is_missing_at_once() -> None:
    """Settings that cannot be used end the command before it joins anything, naming each field."""
    code, output, errors = await ran("run")
    assert (code, output) == (2, "")
    wanted = ("kafka.bootstrap_servers: missing", "tenants: missing", "identity_secret: missing")
    assert [field for field in wanted if field not in errors] == []


async def test_verify_without_a_ledger_says_what_to_give(tmp_path: Path) -> None:
    """The oracle does not guess what it is to compare with."""
    code, _, errors = await ran("sandbox", "verify", "--ledger", str(tmp_path))
    assert code == 2
    assert "name the folder of a ledger" in errors
