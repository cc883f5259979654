"""
Programs started as a user starts them: own processes in own groups, their JSON lines as they come.

Every wait has a deadline. Whatever still runs at the end of a block is killed, by its own group.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

PIPELINE = Path(sys.executable).with_name("pipeline")
DEADLINE_S = 60.0
SETTLE_S = 150
LINE_BYTES = 2**22


class Program:
    """A running `pipeline` command."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.pid = process.pid
        self.lines: list[dict[str, Any]] = []
        self._process = process
        self._log = log

    async def line(self, kind: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """The next line of *kind*; others before it are passed over, and kept in ``lines``."""
        assert self._process.stdout is not None
        async with asyncio.timeout(deadline_s):
            while raw := await self._process.stdout.readline():
                self.lines.append(orjson.loads(raw))
                if self.lines[-1]["kind"] == kind:
                    return self.lines[-1]
        raise AssertionError(f"it ended without {kind!r}; the log ends: {self.log[-2000:]}")

    async def ended(self, deadline_s: float = DEADLINE_S) -> int:
        """Its exit code, once it has ended and all its lines are read."""
        assert self._process.stdout is not None
        async with asyncio.timeout(deadline_s):
            while raw := await self._process.stdout.readline():
                self.lines.append(orjson.loads(raw))
            return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and none to its children."""
        self._process.send_signal(number)

    @property
    def log(self) -> str:
        """What it wrote to standard error so far."""
        return self._log.read_text()


@asynccontextmanager
async def started(*arguments: str, log: Path, **variables: str) -> AsyncIterator[Program]:
    """`pipeline` with *arguments* and environment *variables*; its standard error goes into *log*."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            PIPELINE,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=os.environ | variables,
            start_new_session=True,
            limit=LINE_BYTES,
        )
    try:
        yield Program(process, log)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        async with asyncio.timeout(DEADLINE_S):
            await process.communicate()


async def ran(
    *arguments: str, deadline_s: float = DEADLINE_S, variables: Mapping[str, str] = {}
) -> tuple[int, str, str]:
    """Exit code, output and errors of a command that ends by itself, with environment *variables*."""
    process = await asyncio.create_subprocess_exec(
        PIPELINE,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **variables},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(deadline_s):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode or 0, output.decode(), errors.decode()


class Outside:
    """What a pipeline works with: a Kafka with its topics, and a sandbox, each a process of its own."""

    def __init__(self, folder: Path, kafka: Mapping[str, Any], sandbox: Mapping[str, Any]) -> None:
        self.folder = folder
        self.ledger = Path(sandbox["ledger"])
        self.settings = Path(sandbox["settings"])
        self.bootstrap_servers: str = kafka["bootstrap_servers"]
        self._control: str = sandbox["control_url"]

    @asynccontextmanager
    async def pipeline(self, name: str, *arguments: str, **variables: str) -> AsyncIterator[Program]:
        """`pipeline run`, with a state folder by its *name*."""
        given = {
            "PIPELINE_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "PIPELINE_RUNTIME__STATE_DIR": str(self.folder / name),
            **variables,
        }
        command = ("run", "--settings", str(self.settings), "--json", *arguments)
        async with started(*command, log=self.folder / f"{name}.log", **given) as program:
            yield program

    async def send(self, receiver: str, rate: float) -> None:
        """Let webhooks flow to *receiver*, *rate* a second."""
        await self._asked("PUT", "/traffic", {"receiver": receiver, "rate": rate})

    async def stop(self) -> None:
        """Let no further webhook be made."""
        await self._asked("DELETE", "/traffic")

    async def sent(self, webhooks: int, deadline_s: float = 90.0) -> None:
        """Return when so many webhooks were made."""
        async with asyncio.timeout(deadline_s):
            while (await self._asked("GET", "/status"))["webhooks_sent"] < webhooks:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def verified(self) -> dict[str, Any]:
        """What `pipeline sandbox verify` says, once nothing is left to do; its exit code is ``exit``."""
        where = ("--ledger", str(self.ledger), "--bootstrap-servers", self.bootstrap_servers)
        command = ("sandbox", "verify", *where, "--wait", str(SETTLE_S), "--json")
        code, output, errors = await ran(*command, deadline_s=SETTLE_S + 60)
        assert output, errors
        return {**orjson.loads(output), "exit": code}

    async def lose(self, share: float) -> None:
        """Let this *share* of all webhooks never be sent."""
        rule = {"kind": "lost", "operation": "*.deliver", "probability": share}
        await self._asked("PUT", "/_sandbox/faults", rule)

    def change_settings(self, **parts: Mapping[str, Any]) -> None:
        """Change fields of *parts* of the settings, for whoever reads them from now on."""
        settings = yaml.safe_load(self.settings.read_text())
        for name, fields in parts.items():
            settings[name] = {**settings.get(name, {}), **fields}
        self.settings.write_text(yaml.safe_dump(settings))

    @property
    def target(self) -> tuple[str, ...]:
        """Where a command finds settings and Kafka."""
        return ("--settings", str(self.settings), "--bootstrap-servers", self.bootstrap_servers)

    async def _asked(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        async with (
            asyncio.timeout(DEADLINE_S),
            aiohttp.ClientSession() as session,
            session.request(method, self._control + path, json=body) as answer,
        ):
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found


@asynccontextmanager
async def outside(folder: Path, tenants: tuple[str, ...] = ()) -> AsyncIterator[Outside]:
    """`pipeline broker`, `sandbox` (of *tenants*) and `topics apply`, as a user calls them."""
    chosen = [part for name in tenants for part in ("--tenants", name)]
    ledger = ("--ledger", str(folder / "ledger"), "--receiver-port", str(free_port()), *chosen)
    async with (
        started("broker", "--ephemeral", "--json", log=folder / "broker.log") as broker,
        started("sandbox", *ledger, "--json", log=folder / "sandbox.log") as sandbox,
    ):
        world = Outside(folder, await broker.line("broker"), await sandbox.line("sandbox"))
        code, _, errors = await ran("topics", "apply", *world.target, "--yes")
        assert code == 0, errors
        yield world


def free_port() -> int:
    """A port that was free a moment ago: a receiver that is started again needs the same one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def running(pids: set[int]) -> set[int]:
    """Those of *pids* that run; one that only waits for its parent to look does not."""
    return {pid for pid in pids if (fields := _stat(pid)) and fields[0] != "Z"}


def descendants(pid: int) -> set[int]:
    """All processes below *pid*."""
    everyone = [int(place.name) for place in Path("/proc").glob("[0-9]*")]
    parents = {one: int(fields[1]) for one in everyone if (fields := _stat(one))}
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def _stat(pid: int) -> list[str]:
    """State, parent and so on of a process as the kernel tells it; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
