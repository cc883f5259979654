"""Clients that know nothing of this project read its topics: kcat (librdkafka), and Kafka's own for Java."""

import asyncio
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bench.setting_up import java_program
from tests.broker.subscribe_world import PATIENCE_S, Shop, opened, tag

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOREIGN = Path(__file__).with_name("foreign")
COUNT = 20


async def output(command: Sequence[str]) -> str:
    """What *command* prints; it has to end well."""
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            printed, told = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, told.decode()
    return printed.decode()


def kcat() -> str:
    """Where kcat is; without it the test is skipped, but never by CI."""
    found = shutil.which("kcat")
    missing = "this needs kcat: apt-get install kcat, or brew install kcat"
    if not found and not os.environ.get("CI"):
        pytest.skip(missing)
    assert found, missing
    return found


async def filled(shop: Shop) -> None:
    """Facts and tags that are committed, and some that are taken back."""
    await shop.write(*range(COUNT))
    await shop.write(*range(100, 110), commit=False)
    await shop.write_values([(shop.tags, f"acme:{name}", tag(name)) for name in ("a", "b")])
    await shop.write_values([(shop.tags, "acme:a", None)])


async def read_by_kcat(shop: Shop, topic: str) -> list[dict[str, Any]]:
    """All records of *topic* as kcat tells them: JSON, one a line, headers as a list of names and values."""
    told = ("-X", "isolation.level=read_committed", "-o", "beginning", "-e", "-q", "-J")
    lines = await output([kcat(), "-b", shop.kafka, "-C", "-t", topic, *told])
    return [json.loads(line) for line in lines.splitlines()]


async def test_kcat_reads_keys_headers_and_values(kafka: str) -> None:
    """It sees what is committed and nothing else, with CloudEvents in the headers and JSON in the value."""
    async with opened(kafka) as shop:
        await filled(shop)
        read = await read_by_kcat(shop, shop.events)
    assert {each["key"] for each in read} == {f"acme:m:{number}" for number in range(COUNT)}
    headers = dict(zip(read[0]["headers"][::2], read[0]["headers"][1::2], strict=True))
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_type"] == json.loads(read[0]["payload"])["type"]
    assert len(headers["traceparent"]) == 55


async def test_kcat_sees_a_tombstone_as_null(kafka: str) -> None:
    """The last record of a removed key has no value, and still says what it is of."""
    async with opened(kafka) as shop:
        await filled(shop)
        read = [each for each in await read_by_kcat(shop, shop.tags) if each["key"] == "acme:a"]
    assert [each["payload"] is None for each in read] == [False, True]
    assert "users.tag.v1" in read[-1]["headers"]


async def test_the_java_client_reads_keys_headers_and_values(kafka: str) -> None:
    """A consumer group of Kafka's own client gets every committed fact once."""
    command = java_program(FOREIGN / "Reader.java", FOREIGN / "kafka-clients.lock", memory="256m")
    async with opened(kafka) as shop:
        await filled(shop)
        lines = await output([*command, kafka, f"t{uuid.uuid4().hex}", shop.events, str(COUNT)])
    read = [line.split("\t") for line in lines.splitlines()]
    assert sorted(key for key, *_ in read) == sorted(f"acme:m:{number}" for number in range(COUNT))
    for _, value, *headers in read:
        assert f"ce_type={json.loads(value)['type']}" in headers
        assert "ce_specversion=1.0" in headers
