"""
A real Apache Kafka on this machine, as a child process: one KRaft node on loopback ports of its own.

A folder holds one cluster: its id and data stay over restarts, its ports need not. The folder's lock is
held by the child itself, so that a second start is refused for as long as anything writes there. The
child ends with its parent, also when that is killed with -9: see ``broker_guard.py``.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import BrokerError
from pipeline.runtime.broker_files import (
    KAFKA_VERSION,
    KafkaFiles,
    OnProgress,
    Progress,
    check_space,
    default_cache,
    disk_free,
    java,
)
from pipeline.runtime.broker_settings import (
    LOOPBACK,
    Seat,
    cluster_id,
    format_folder,
    log4j_properties,
    node_settings,
    server_properties,
)

__all__ = ["DEFAULT_DATA_DIR", "EmbeddedBroker"]

DEFAULT_DATA_DIR = Path(".pipeline/kafka")
DATA_NEEDS_BYTES = 500 * 2**20
"""Kafka stops for good when its disk fills up: refuse to begin when that is near."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0
"""Above the guard's own patience: then the guard itself is stuck."""
LOCK_PATIENCE_S = 5.0
"""A parent that was killed leaves a broker that is still ending."""
PROBE_TIMEOUT_S = 1.0
PORT_TRIES = 5
LOG_TAIL_LINES = 12
EPHEMERAL = "pipeline-kafka-"
_NONE: Mapping[str, str] = {}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class _PortTaken(BrokerError):  # noqa: N818 - a state that is tried again
    """Another process took a port between our choice and Kafka's use of it."""


class EmbeddedBroker:
    """
    One Kafka, from ``async with`` to its end; its topics live in *data_dir*, or nowhere after it.

    *data_dir* None is ephemeral: a temporary folder, removed at the end. *port* 0 takes a free one.
    *host* is the address to listen on, *advertised_host* the name by which clients reach it from where
    they are, by default the same. *seat* makes it one of several, see ``broker_cluster.py``.
    *cache* and *repository* say where Kafka's jars are kept and come from (see `KafkaFiles`);
    *record_start* lets the first broker record what makes the next one start in half the time, which
    its stop pays for with 5 s. *settings* are Kafka's own, in place of ours or beside them.
    Entering raises `ConfigError` (an extra is missing) or `BrokerError` (no network, disk full, folder
    in use, Kafka died with the last lines of its log), each saying what to do.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        host: str = LOOPBACK,
        advertised_host: str = "",
        seat: Seat | None = None,
        heap_mb: int = 512,
        on_progress: OnProgress = lambda _: None,
        cache: Path | None = None,
        repository: str | None = None,
        record_start: bool = True,
        free_bytes: Callable[[Path], int] = disk_free,
        settings: Mapping[str, str] = _NONE,
    ) -> None:
        self.ephemeral = data_dir is None
        self.data_dir = (data_dir or Path(tempfile.gettempdir())).absolute()
        self.version = KAFKA_VERSION
        self.port = port
        self._seat = seat
        self._fixed_port = seat.port if seat else port
        self._host = host
        self._advertised_host = advertised_host or host
        self._heap_mb = heap_mb
        self._record_start = record_start
        self._on_progress = on_progress
        self._free_bytes = free_bytes
        self._settings = settings
        self._files = KafkaFiles(
            cache=cache or default_cache(),
            repository=repository,
            on_progress=on_progress,
            free_bytes=free_bytes,
        )
        self._guard: asyncio.subprocess.Process | None = None
        self._trained: Path | None = None
        self._stopping = False

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, ``host:port``."""
        return f"{self._advertised_host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of Java."""
        return int(self._path("broker.lock").read_text())

    @property
    def cluster_id(self) -> str:
        """The id of the cluster in this folder."""
        return cluster_id(self._path("data"))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bring up Kafka, and return when it answers a client."""
        self._stopping = False
        try:
            await self._prepare()
            if self.ephemeral:
                self.data_dir = Path(tempfile.mkdtemp(prefix=EPHEMERAL))
            await self._start_healing()
        except OSError as failure:
            await self.kill()
            raise BrokerError(f"Kafka's files cannot be written: {failure}") from failure
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Stop Kafka in order, and remove an ephemeral folder; killed when that takes too long."""
        self._stopping = True
        try:
            if self._guard is not None:
                await self._stop_guard(self._guard)
        finally:
            self._guard = None
            if self.ephemeral and self.data_dir.name.startswith(EPHEMERAL):
                shutil.rmtree(self.data_dir, ignore_errors=True)

    async def kill(self) -> None:
        """End Kafka at once, also where it is stopped by a signal: as when its machine fails."""
        if self._guard is not None:
            _kill_group(self._guard.pid)
        await self.stop()

    async def wait(self) -> None:
        """Return when Kafka has been stopped. Raises BrokerError when it ended by itself."""
        if self._guard is None:
            raise BrokerError("Kafka is not running")
        code = await self._guard.wait()
        if not self._stopping:
            raise self._died(code)

    def _path(self, name: str) -> Path:
        return self.data_dir / name

    async def _prepare(self) -> None:
        try:
            await asyncio.to_thread(self._files.prepare)
        except asyncio.CancelledError:
            self._files.cancelled.set()
            raise

    async def _start_healing(self) -> None:
        """Start; when Kafka dies and a jar turns out to be broken, bring it anew and start once more."""
        try:
            await self._start_on_free_ports()
        except BrokerError:
            if not await asyncio.to_thread(self._files.discard_broken):
                raise
            await self._prepare()
            await self._start_on_free_ports()

    async def _start_on_free_ports(self) -> None:
        for last in (*[False] * (PORT_TRIES - 1), True):
            self.port = self._fixed_port or _free_port()
            try:
                await self._start_once()
            except _PortTaken:
                if self._fixed_port or last:
                    raise
            else:
                return

    async def _start_once(self) -> None:
        self._on_progress(Progress(text=f"starting Kafka {KAFKA_VERSION}"))
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = await self._lock()
        try:
            check_space(self.data_dir, DATA_NEEDS_BYTES, self._free_bytes)
            self._write_settings()
            self._guard = await self._spawn(lock)
        finally:
            os.close(lock)  # from here on the guard and Java hold it
        await self._answering(self._guard)

    async def _lock(self) -> int:
        """Return the descriptor of the folder's lock. Raises BrokerError when the folder is in use."""
        lock = os.open(self._path("broker.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            async with asyncio.timeout(LOCK_PATIENCE_S):
                while not _try_flock(lock):  # noqa: ASYNC110 - another process holds it
                    await asyncio.sleep(0.1)
        except TimeoutError:
            holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
            os.close(lock)
            raise BrokerError(
                f"the folder {self.data_dir} is in use by another Kafka (process {holder}): "
                "stop that one, or use another folder"
            ) from None
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _write_settings(self) -> None:
        """Write all that Kafka reads; the format of the folder last, so that half of it is no format."""
        data = self._path("data")
        settings = node_settings(
            port=self.port,
            controller_port=_free_port(),
            logs=data,
            host=self._host,
            advertised_host=self._advertised_host,
        )
        if self._seat is not None:
            settings |= self._seat.settings
        settings |= self._settings
        self._path("server.properties").write_text(server_properties(settings), encoding="utf-8")
        log4j = log4j_properties(self._path("server.log"))
        self._path("log4j2.properties").write_text(log4j, encoding="utf-8")
        if not cluster_id(data):
            node_id, cluster = (self._seat.node_id, self._seat.cluster) if self._seat else (1, "")
            format_folder(data, self._files.bootstrap, node_id=node_id, cluster=cluster)

    async def _spawn(self, lock: int) -> asyncio.subprocess.Process:
        folder = str(self.data_dir) if self.ephemeral else "-"
        program = str(Path(__file__).with_name("broker_guard.py"))
        with self._path("console.log").open("wb") as console:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", program, str(lock), folder),
                *self._java_command(),
                stdin=asyncio.subprocess.PIPE,
                stdout=console,
                stderr=console,
                pass_fds=(lock,),
                start_new_session=True,  # the terminal's Ctrl-C is for the parent, which stops us in order
            )

    def _java_command(self) -> list[str]:
        return [
            str(java()),
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",  # on two cores least memory and start time
            "-XX:TieredStopAtLevel=1",  # nor does it compile twice what runs for minutes
            "-XX:+ExitOnOutOfMemoryError",
            "--sun-misc-unsafe-memory-access=allow",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self._path('log4j2.properties')}",
            *self._aot_flags(),
            "-cp",
            self._files.class_path,
            "kafka.Kafka",
            str(self._path("server.properties")),
        ]

    def _aot_flags(self) -> list[str]:
        """Use the ahead-of-time cache, its sum checked by the JVM; without one, record it on the way."""
        quiet = ["-Xlog:disable", "-Xlog:all=error:stderr"]
        cache = self._files.aot_cache
        if cache.is_file():
            return [
                *quiet,
                "-XX:+UnlockDiagnosticVMOptions",
                "-XX:+VerifySharedSpaces",
                f"-XX:AOTCache={cache}",
            ]
        if not self._record_start or not os.access(cache.parent, os.W_OK):
            return quiet
        self._trained = self._path("start.aot")
        return [*quiet, f"-XX:AOTCacheOutput={self._trained}"]

    async def _answering(self, guard: asyncio.subprocess.Process) -> None:
        """Return when Kafka answers. Raises BrokerError when it dies before, or takes too long."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while guard.returncode is None and not await _answers(self.port):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise BrokerError(
                f"Kafka gave no answer for {START_TIMEOUT_S:.0f} s:\n{self._log_tail()}"
            ) from None
        if guard.returncode is not None:
            raise self._died(guard.returncode)
        if "[aot]" in self._console():  # refused by the JVM, which started without it: make a new one
            self._files.aot_cache.unlink(missing_ok=True)
        self._on_progress(Progress(text=f"Kafka {KAFKA_VERSION} is ready at {self.bootstrap_servers}"))

    def _died(self, code: int) -> BrokerError:
        """Return the error that says why Kafka ended with *code*, as far as its log tells."""
        tail = self._log_tail()
        if "Address already in use" in tail:
            return _PortTaken(
                f"port {self.port} is in use by another process: use another, or 0 for a free one"
            )
        if "No space left on device" in tail or self._free_bytes(self.data_dir) < 2**20:
            return BrokerError(f"Kafka ended because the disk of {self.data_dir} is full: free some space")
        return BrokerError(f"Kafka ended by itself (exit code {code}); the end of its log:\n{tail}")

    def _console(self) -> str:
        return self._path("console.log").read_text(encoding="utf-8", errors="replace")

    def _log_tail(self) -> str:
        """Return the last lines of the server's log and of what Java itself said."""
        log = self._path("server.log")
        lines = _tail(log) if log.is_file() else []
        return "\n".join([*lines, *self._console().splitlines()[-LOG_TAIL_LINES:]])

    async def _stop_guard(self, guard: asyncio.subprocess.Process) -> None:
        assert guard.stdin is not None
        if self._trained is not None and guard.returncode is None:
            self._on_progress(Progress(text="stopping Kafka, and keeping what makes its next start faster"))
        with suppress(ConnectionError, RuntimeError):  # uvloop's word for a closed pipe
            guard.stdin.write(b"stop\n")
            guard.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await guard.wait()
        except TimeoutError:
            pass
        finally:
            if guard.returncode is None or guard.returncode < 0:
                _kill_group(guard.pid)
            self._keep_trained(in_order=guard.returncode == 128 + signal.SIGTERM)

    def _keep_trained(self, *, in_order: bool) -> None:
        """Put the ahead-of-time cache in its place when Java had the time to write it whole."""
        recorded, self._trained = self._trained, None
        if recorded is None or not recorded.is_file():
            return
        if in_order:
            new = self._files.aot_cache.with_suffix(f".{os.getpid()}")
            shutil.copyfile(recorded, new)
            new.replace(self._files.aot_cache)
        recorded.unlink()


def _try_flock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _tail(path: Path) -> list[str]:
    """Return the last lines of a log, without reading all of it."""
    with path.open("rb") as file:
        file.seek(-min(16_384, path.stat().st_size), os.SEEK_END)
        return file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]


async def _answers(port: int) -> bool:
    """Ask the broker for its API versions (request 18, version 0): it answers when it serves clients."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(struct.pack(">i", len(request)) + request)
                await writer.drain()
                head = await reader.readexactly(8)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return bool(struct.unpack(">ii", head)[1] == 1)
