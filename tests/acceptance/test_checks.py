"""`pipeline doctor` and `pipeline sandbox verify` beside a running broker and sandbox."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest_asyncio

from tests.acceptance.programs import Outside, outside, ran


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: Any) -> AsyncIterator[Outside]:
    """A Kafka with its topics and a sandbox, for all tests here."""
    async with outside(tmp_path_factory.mktemp("checks")) as running:
        yield running


async def examined(world: Outside, **variables: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, checks and the whole output of `pipeline doctor` on *world*."""
    given = {"PIPELINE_KAFKA__BOOTSTRAP_SERVERS": world.bootstrap_servers, **variables}
    code, output, errors = await ran("doctor", "--settings", str(world.settings), "--json", variables=given)
    return code, [orjson.loads(line) for line in output.splitlines()], output + errors


async def test_all_is_well_where_all_is_well(world: Outside) -> None:
    """Settings, Kafka, topics, identity, both APIs of three tenants and both ports are found good."""
    code, checks, told = await examined(world)
    assert [check for check in checks if not check["ok"]] == [], told
    assert code == 0
    assert len(checks) == 4 + 3 * 2 + 2


async def test_a_wrong_secret_is_named_and_not_told(world: Outside) -> None:
    """The operator learns which file to correct; what stands in it stays there."""
    file = world.ledger / "secrets" / "bolt-sakari-secret"
    right = _replaced(file, "a-secret-that-is-wrong")
    try:
        code, checks, told = await examined(world)
    finally:
        _replaced(file, right)
    problems = [check for check in checks if not check["ok"]]
    assert code == 1
    assert [check["name"].partition(" ")[0] for check in problems] == ["bolt:"], told
    assert str(file) in problems[0]["advice"]
    assert "a-secret-that-is-wrong" not in told


async def test_the_rest_is_examined_where_kafka_is_away(world: Outside) -> None:
    """One problem hides no other: without Kafka, Sakari and the ports are looked at all the same."""
    code, checks, _ = await examined(world, PIPELINE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    found = {check["name"]: check["ok"] for check in checks}
    assert code == 1
    assert (found["kafka"], found["receiver port"]) == (False, True)
    assert [ok for name, ok in found.items() if ": sakari " in name] == [True] * 3


async def test_missing_topics_are_told_with_what_makes_them(world: Outside) -> None:
    """A cluster that is not prepared is told with the command that prepares it."""
    code, checks, _ = await examined(world, PIPELINE_APPLICATION_ID="other")
    problems = [check for check in checks if not check["ok"]]
    assert code == 1
    assert {check["name"] for check in problems} == {"topics"}
    assert "pipeline topics apply" in problems[0]["advice"]


async def test_verify_fails_where_no_pipeline_has_worked(world: Outside) -> None:
    """Agreement on nothing proves nothing: what was not seen is listed, and the exit code is 1."""
    where = ("--ledger", str(world.ledger), "--bootstrap-servers", world.bootstrap_servers)
    code, output, errors = await ran("sandbox", "verify", *where)
    assert code == 1, errors
    assert [
        each
        for each in ("late facts", "closed windows", "replies")
        if f"not seen        {each}" not in output
    ] == []
    assert output.splitlines()[-1] == "failed"


def _replaced(file: Path, text: str) -> str:
    """What stood in *file* until now."""
    before = file.read_text()
    file.write_text(text)
    return before
