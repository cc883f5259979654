"""The programs on the pages of the topics, run as a reader would run them, against a real Kafka."""

import asyncio
import sys
import uuid
from pathlib import Path

import pytest

from pipeline.catalogue.pages import TEAM, snippets
from pipeline.runtime.admin import ensure
from pipeline.runtime.topic_plan import wanted
from pipeline.topics import load
from tests.bench.setting_up import java_program
from tests.broker.test_foreign_clients import FOREIGN, kcat, output
from tests.broker.test_readme_snippet import PATIENCE_S, TOPIC, printed_until, written

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
TEXTS = snippets(TOPIC)


async def filled(kafka: str) -> tuple[str, str]:
    """The keys of an activity that was taken back, and of one that is committed."""
    topics = load()
    only = [each for each in wanted(topics, topics.profile("dev"), "unused") if each.name == TOPIC]
    await ensure({"bootstrap_servers": kafka}, only)
    aborted, committed = (f"acme:m:{uuid.uuid4().hex}" for _ in range(2))
    await written(kafka, aborted, commit=False)
    await written(kafka, committed, commit=True)
    return aborted, committed


async def test_the_program_in_python_prints_what_is_committed(kafka: str, tmp_path: Path) -> None:
    """Typed, and nothing of what was taken back."""
    aborted, committed = await filled(kafka)
    file = tmp_path / "subscribe.py"
    file.write_text(TEXTS["subscribe.py"].replace(TEAM, f"t{uuid.uuid4().hex}"))
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(file), kafka, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        lines = await printed_until(program, committed)
    finally:
        program.kill()
        await program.wait()
    assert "Activity(" in lines[-1]
    assert not [line for line in lines if aborted in line]


async def test_the_command_of_kcat_prints_what_is_committed(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key, headers and value; it ends by itself."""
    kcat()
    aborted, committed = await filled(kafka)
    monkeypatch.setenv("SERVERS", kafka)
    async with asyncio.timeout(PATIENCE_S):
        told = await output(["sh", "-c", TEXTS["kcat.sh"]])
    assert aborted not in told
    assert f"{committed}\n  ce_specversion=1.0," in told


async def test_the_program_in_java_prints_what_is_committed(kafka: str, tmp_path: Path) -> None:
    """It compiles with Kafka's own client, and reads."""
    aborted, committed = await filled(kafka)
    file = tmp_path / "Subscribe.java"
    file.write_text(TEXTS["Subscribe.java"].replace(TEAM, f"t{uuid.uuid4().hex}"))
    command = java_program(file, FOREIGN / "kafka-clients.lock", memory="256m")
    program = await asyncio.create_subprocess_exec(
        *command,
        kafka,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        lines = await printed_until(program, committed)
    finally:
        program.kill()
        await program.wait()
    assert not [line for line in lines if aborted in line]
