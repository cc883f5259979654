"""The embedded Kafka as its users meet it: it serves, keeps, refuses, heals, and never outlives them."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.errors import BrokerError
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.broker_files import KafkaFiles, Progress, locked_jars

DEADLINE_S = 30
PARENT = """
import asyncio, pathlib, sys
from pipeline.runtime.broker import EmbeddedBroker
async def main():
    folder = pathlib.Path(sys.argv[1]) if sys.argv[1:] else None
    async with EmbeddedBroker(folder) as broker:
        print(broker.pid, broker.data_dir, flush=True)
        await broker.wait()
asyncio.run(main())
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of this test's own, whole, that it may break."""
    KafkaFiles().prepare()
    shutil.copytree(KafkaFiles().folder, tmp_path / "cache" / KafkaFiles().folder.name)
    return tmp_path / "cache"


@asynccontextmanager
async def parent_of_broker(*folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, Path]]:
    """Run a program that holds a broker in *folder*; yields it, the process id of its Java, the folder."""
    program = (sys.executable, "-c", PARENT, *map(str, folder))
    parent = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    try:
        line = await asyncio.wait_for(parent.stdout.readline(), DEADLINE_S)
        pid, _, used = line.decode().strip().partition(" ")
        yield parent, int(pid), Path(used)
    finally:
        if parent.returncode is None:
            parent.kill()
        await parent.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Return when *condition* holds; fails at the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - a condition of another process
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Return whether a process runs; one that ended and was not yet collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def produce(servers: str, topic: str, value: bytes) -> None:
    """Write one record."""
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def create(servers: str, topic: str) -> None:
    """Create *topic*."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def first_value(servers: str, topic: str) -> bytes | None:
    """Return the value of the first record of *topic*."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        record = await asyncio.wait_for(consumer.getone(), DEADLINE_S)
        return bytes(record.value) if record.value is not None else None


async def test_session_kafka_serves_what_was_produced(kafka: str) -> None:
    """What one client produced, another reads."""
    await create(kafka, "embedded.served")
    await produce(kafka, "embedded.served", b"hello")
    assert await first_value(kafka, "embedded.served") == b"hello"


async def test_a_kept_folder_is_the_same_cluster_with_its_data(tmp_path: Path) -> None:
    """A second start on the folder has the first one's id and records, whatever its ports."""
    async with EmbeddedBroker(tmp_path) as first:
        identity = first.cluster_id
        await create(first.bootstrap_servers, "kept")
        await produce(first.bootstrap_servers, "kept", b"still here")
    async with EmbeddedBroker(tmp_path) as second:
        assert second.cluster_id == identity
        assert await first_value(second.bootstrap_servers, "kept") == b"still here"


async def test_an_ephemeral_broker_leaves_nothing() -> None:
    """The temporary folder and the process are gone after the end."""
    async with EmbeddedBroker() as broker:
        folder, pid = broker.data_dir, broker.pid
        assert folder.is_dir()
    assert not folder.exists()
    assert not alive(pid)


async def test_a_folder_in_use_is_refused_by_name_and_process(tmp_path: Path) -> None:
    """Two Kafkas never write one folder; the error names it and who holds it."""
    async with EmbeddedBroker(tmp_path) as first:
        with pytest.raises(BrokerError, match=f"{tmp_path} is in use .*process {first.pid}"):
            await EmbeddedBroker(tmp_path).start()
        assert alive(first.pid)


async def test_kill_9_of_the_parent_ends_kafka_and_frees_the_folder(tmp_path: Path) -> None:
    """No Kafka outlives the program that started it, and its folder starts again at once."""
    async with parent_of_broker(tmp_path) as (parent, pid, _):
        parent.kill()
        await until(lambda: not alive(pid))
    async with EmbeddedBroker(tmp_path) as again:
        assert again.pid != pid


async def test_kill_9_of_the_parent_removes_an_ephemeral_folder() -> None:
    """What was meant to vanish vanishes also when nobody is left to clean up."""
    async with parent_of_broker() as (parent, _, folder):
        assert folder.is_dir()
        parent.kill()
        await until(lambda: not folder.exists())


async def test_kill_9_of_the_guard_ends_kafka_and_is_reported(tmp_path: Path) -> None:
    """The process between parent and Java is no way for Java to be left over."""
    async with EmbeddedBroker(tmp_path) as broker:
        assert broker._guard is not None
        pid = broker.pid
        os.kill(broker._guard.pid, signal.SIGKILL)
        with pytest.raises(BrokerError, match="ended by itself"):
            await asyncio.wait_for(broker.wait(), DEADLINE_S)
        await until(lambda: not alive(pid))


async def test_kafka_that_dies_is_reported_with_its_log(tmp_path: Path) -> None:
    """Whoever waits for a broker learns that it ended, with the end of its log."""
    async with EmbeddedBroker(tmp_path) as broker:
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(BrokerError, match=r"(?s)ended by itself.*Kafka Server started"):
            await asyncio.wait_for(broker.wait(), DEADLINE_S)


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A path below a file is no folder: the error names it."""
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match=f"cannot be written: .*{tmp_path}/file"):
        await EmbeddedBroker(tmp_path / "file" / "kafka").start()


async def test_a_taken_port_is_named() -> None:
    """A port that the user chose is never silently replaced by another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is in use"):
            await EmbeddedBroker(port=port).start()


async def test_clients_are_sent_to_the_advertised_name(tmp_path: Path) -> None:
    """A client that found it by another address of this machine works by the advertised name from then on."""
    async with EmbeddedBroker(tmp_path, host="0.0.0.0", advertised_host="localhost") as broker:
        assert broker.bootstrap_servers == f"localhost:{broker.port}"
        elsewhere = f"127.0.0.2:{broker.port}"
        await create(elsewhere, "advertised")
        await produce(elsewhere, "advertised", b"found")
        assert await first_value(broker.bootstrap_servers, "advertised") == b"found"


async def test_a_half_downloaded_jar_is_brought_anew(cache: Path) -> None:
    """A jar cut short is noticed at the next start and downloaded again, alone."""
    jar = min(locked_jars(), key=lambda each: each.size)
    path = KafkaFiles(cache=cache).folder / jar.filename
    os.truncate(path, jar.size // 2)
    steps: list[Progress] = []
    async with EmbeddedBroker(cache=cache, record_start=False, on_progress=steps.append):
        assert path.stat().st_size == jar.size
    assert {step.total_bytes for step in steps if step.total_bytes} == {jar.size}


async def test_a_jar_with_wrong_bytes_is_brought_anew_when_kafka_dies_of_it(cache: Path) -> None:
    """Damage that keeps the size is found by its sum after a start that failed."""
    jar = next(each for each in locked_jars() if each.artifact == "kafka_2.13")
    path = KafkaFiles(cache=cache).folder / jar.filename
    path.write_bytes(bytes(jar.size))
    async with EmbeddedBroker(cache=cache, record_start=False) as broker:
        assert alive(broker.pid)
    assert path.read_bytes() != bytes(jar.size)


async def test_a_broken_start_cache_is_ignored_and_made_anew(cache: Path) -> None:
    """The ahead-of-time cache only saves time: a broken one costs some, and is replaced."""
    aot = KafkaFiles(cache=cache).aot_cache
    aot.write_bytes(b"not a cache" * 1000)
    async with EmbeddedBroker(cache=cache):
        assert not aot.exists()
    async with EmbeddedBroker(cache=cache):
        assert not aot.exists()
    assert aot.stat().st_size > 2**20


async def test_a_full_disk_is_named_when_kafka_ends_of_it(tmp_path: Path) -> None:
    """A Kafka that ended on a full disk is reported as that, not as a stack trace."""
    free = [2**40]
    async with EmbeddedBroker(tmp_path, free_bytes=lambda _: free[-1]) as broker:
        free.append(0)
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(BrokerError, match=f"the disk of {tmp_path} is full"):
            await asyncio.wait_for(broker.wait(), DEADLINE_S)


async def test_a_half_formatted_folder_is_formatted_again(tmp_path: Path) -> None:
    """A format that was cut off before its last step leaves no cluster, so it is made again."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bootstrap.checkpoint").write_bytes(b"half")
    (tmp_path / "data" / "meta.properties.new").write_text("version=1\n")
    async with EmbeddedBroker(tmp_path) as broker:
        assert len(broker.cluster_id) == 22


async def test_a_second_start_needs_no_network(tmp_path: Path) -> None:
    """With the cache filled, the repository may be unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with EmbeddedBroker(tmp_path, repository=nowhere) as broker:
        assert broker.cluster_id
