"""The sandbox as a child process of `pipeline dev`, and how it is told what to do."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, final

import aiohttp
import msgspec
import orjson

from pipeline.errors import PipelineError

__all__ = ["Sandbox", "SandboxOptions", "opened"]

_START_S: Final = 30.0
_STOP_S: Final = 5.0
_CALL_S: Final = 120.0


@final
class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the sandbox is started with."""

    folder: Path
    seed: int
    rate: float
    tenants: Sequence[str]
    faults: bool = True


class Sandbox:
    """Where the sandbox is, and its control port."""

    def __init__(self, where: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self.sakari_url: str = where["sakari_url"]
        self.users_url: str = where["users_url"]
        self.control_url: str = where["control_url"]
        self.settings = Path(where["settings"])
        self.ledger = Path(where["ledger"])
        self._session = session

    async def start(self, receiver: str, rate: float, count: int | None = None) -> None:
        """Let traffic flow to *receiver*, at *rate* webhooks a second."""
        body: dict[str, Any] = {"receiver": receiver, "rate": rate}
        await self._call("PUT", "/traffic", {**body, "count": count} if count else body)

    async def stop(self) -> None:
        """Let no further webhook be made."""
        await self._call("DELETE", "/traffic")

    async def drain(self) -> None:
        """Return when every webhook has had its last attempt."""
        await self._call("POST", "/drain")

    async def send(self) -> None:
        """One webhook now."""
        await self._call("POST", "/send")

    async def status(self) -> dict[str, Any]:
        """What it has done so far."""
        found: dict[str, Any] = await self._call("GET", "/status")
        return found

    async def holdings(self) -> list[dict[str, Any]]:
        """What the Users API was given, as the oracle takes it."""
        found: list[dict[str, Any]] = await self._call("GET", "/holdings")
        return found

    async def put_fault(self, rule: dict[str, Any]) -> int:
        """Switch a fault on; its number."""
        return int((await self._call("PUT", "/_sandbox/faults", rule))["id"])

    async def remove_fault(self, number: int) -> None:
        """Switch a fault off."""
        await self._call("DELETE", f"/_sandbox/faults?id={number}")

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            async with asyncio.timeout(_CALL_S):
                async with self._session.request(method, self.control_url + path, json=body) as answer:
                    found = await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PipelineError(f"the sandbox does not answer: {type(error).__name__}") from error
        if answer.status >= 400:
            raise PipelineError(f"the sandbox refused {method} {path}: {found.get('error')}")
        return found


@asynccontextmanager
async def opened(options: SandboxOptions) -> AsyncIterator[Sandbox]:
    """
    The sandbox, serving; it ends with the block, or with this process.

    Raises:
        PipelineError: it did not start; says what it said.
    """
    arguments = ["--json", "--until-stdin-closes", "--ledger", str(options.folder)]
    arguments += ["--seed", str(options.seed), "--rate", str(options.rate)]
    arguments += [part for name in options.tenants for part in ("--tenants", name)]
    arguments += [] if options.faults else ["--no-faults"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pipeline",
        "sandbox",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        where = await _told(process)
        async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as session:
            passing = tasks.create_task(_pass_on(process), name="sandbox log")
            yield Sandbox(where, session)
            passing.cancel()
    finally:
        await _end(process)


async def _told(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(_START_S):
            line = await process.stdout.readline()
    except TimeoutError as error:
        raise PipelineError(f"the sandbox did not start within {_START_S:.0f} s") from error
    if not line:
        said = (await process.stderr.read()).decode(errors="replace").strip().splitlines()[-5:]
        raise PipelineError("the sandbox did not start: " + " · ".join(said))
    found: dict[str, Any] = orjson.loads(line)
    return found


async def _pass_on(process: asyncio.subprocess.Process) -> None:
    """Let the sandbox's log be ours."""
    assert process.stderr is not None
    async for line in process.stderr:
        sys.stderr.buffer.write(line)
        sys.stderr.flush()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
