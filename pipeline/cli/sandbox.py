"""`pipeline sandbox`: both APIs, sample traffic and the ledger, alone; `verify` is the oracle on its own."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import aiohttp
import cyclopts
import orjson

from pipeline import logs
from pipeline.cli.output import print_json
from pipeline.cli.stopping import stopped_by_signals
from pipeline.errors import ConfigError, PipelineError
from pipeline.sandbox.program import Options, Program, opened
from pipeline.sandbox.settings_file import written

if TYPE_CHECKING:
    from pipeline.sandbox.oracle import Report
    from pipeline.settings import Settings

__all__ = ["app"]

app = cyclopts.App(
    name="sandbox",
    help="""
    Serve both APIs with sample traffic, and keep a ledger of what really happened.

    `pipeline sandbox` serves until Ctrl-C, `pipeline sandbox verify` compares what a pipeline made of it.

    Into the ledger's folder it also writes ``settings.yaml``, with which `pipeline run` works against it,
    and ``sandbox.json``, which says where everything listens.

    Exit codes: 0 stopped, 1 failed, 2 the ledger's folder or a tenant's name cannot be used.

    Examples::

        pipeline sandbox                                     # serves; traffic begins when told to
        pipeline sandbox --receiver http://127.0.0.1:8080    # sends webhooks there
        pipeline sandbox --ledger /tmp/run1 --seed 3 --rate 200 --json
    """,
)


@app.default
async def sandbox(
    options: Annotated[Options | None, cyclopts.Parameter(name="*")] = None,
    *,
    receiver: str = "",
    count: int | None = None,
    bootstrap_servers: str = "",
    receiver_port: int = 0,
    until_stdin_closes: Annotated[bool, cyclopts.Parameter(show=False)] = False,
    json: bool = False,
) -> None:
    """
    Serve both APIs until Ctrl-C, keep a ledger of what really happened, and send sample traffic.

    Parameters
    ----------
    receiver
        Base URL of the pipeline's receiver. Without it traffic begins when the control port is told so.
    count
        Stop the traffic after so many webhooks; serve on.
    bootstrap_servers
        Written into the settings.
    receiver_port
        Written into the settings.
    json
        Print one line of JSON instead of text.
    """
    logs.configure("info", "json" if json else "auto")
    options = options or Options()
    ended = asyncio.Event()
    with stopped_by_signals(ended.set):
        async with opened(options) as program:
            settings = written(
                program, options.ledger, bootstrap_servers=bootstrap_servers, receiver_port=receiver_port
            )
            _tell(program, settings, json=json)
            if receiver:
                program.subscribe(receiver)
                program.start(count=count)
            await _until(ended, stdin=until_stdin_closes)
            await program.stop()


@app.command
async def verify(
    *,
    ledger: Path = Path(".pipeline/sandbox"),
    settings: Path | None = None,
    bootstrap_servers: str = "",
    wait: float = 0.0,
    json: bool = False,
) -> int:
    """
    Compare what the pipeline wrote with what really happened: the oracle on its own.

    It reads the topics afresh, and reckons every number from the ledger without any of the pipeline's
    code. Stop the traffic first. With --wait it returns only when the pipeline has nothing left to do,
    wherever its processes run: no lag, two further scans of every poller, everything posted.

    Exit codes: 0 no mismatch and enough was seen, 1 otherwise, 2 ledger or settings cannot be used.

    Examples::

        pipeline sandbox verify --ledger /tmp/run1 --bootstrap-servers 127.0.0.1:9092
        pipeline sandbox verify --ledger /tmp/run1 --wait 120 --json

    Parameters
    ----------
    ledger
        Folder of the ledger, as given to `pipeline sandbox`.
    settings
        What the pipeline was started with; default: settings.yaml in the ledger's folder.
    bootstrap_servers
        Kafka's host:port,…; default: as the settings say.
    wait
        Wait at most so many seconds until the pipeline has nothing left to do.
    json
        Print one line of JSON instead of text.
    """
    from pipeline.cli.cluster import settings_of  # noqa: PLC0415 - the sandbox alone needs no Kafka client

    logs.configure("warning", "json" if json else "auto")
    file = settings or ledger / "settings.yaml"
    if not file.is_file():
        raise ConfigError(f"{file}: is missing; name the folder of a ledger, or give --settings")
    report = await _verified(ledger, settings_of(file, bootstrap_servers), wait)
    if json:
        print_json("verified", **report.to_json())
    else:
        print(_text(report))
    return 0 if report.passed else 1


async def _verified(ledger: Path, settings: "Settings", wait: float) -> "Report":
    from pipeline.dev.settled import settled  # noqa: PLC0415
    from pipeline.dev.verification import partitions_of, read_topics, verified  # noqa: PLC0415
    from pipeline.runtime.connection import Connection  # noqa: PLC0415

    connection = Connection(settings.kafka, settings.runtime)
    partitions = await partitions_of(connection)
    await _asked(ledger, "drain")
    if wait:
        await settled(settings, connection, partitions, wait, _progress)
    return await verified(
        settings, ledger, await read_topics(connection, partitions), await _asked(ledger, "holdings")
    )


async def _asked(ledger: Path, what: Literal["drain", "holdings"]) -> list[dict[str, Any]] | None:
    """Let the sandbox of *ledger* do *what*; None where it runs no more."""
    from pipeline.dev.child import Sandbox  # noqa: PLC0415

    try:
        where = orjson.loads((ledger / "sandbox.json").read_bytes())
        async with aiohttp.ClientSession() as session:
            sandbox = Sandbox(where, session)
            return await (sandbox.holdings() if what == "holdings" else sandbox.drain())
    except FileNotFoundError as error:
        raise ConfigError(f"{ledger} holds no ledger: sandbox.json is missing") from error
    except PipelineError as error:
        if what == "holdings":
            _progress(f"{error}; what was posted to it is not compared")
        return None


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _text(report: "Report") -> str:
    """*report* as aligned lines."""
    lines = [
        f"compared        {report.compared:,}",
        f"mismatches      {report.mismatches:,}",
        f"windows         {report.windows:,}, of them closed {report.closed_windows:,}",
        f"late facts      {report.late:,}",
    ]
    lines += [f"dead letters    {count:,} {kind}" for kind, count in report.dead_letters.items()]
    lines += [f"  {name:<28} {count:,} mismatches" for name, count in report.failed_checks.items()]
    lines += [
        f"  {e['check']}: {e['what']}: expected {e['expected']}, found {e['actual']}" for e in report.examples
    ]
    lines += [f"not seen        {name}" for name in report.uncovered]
    return "\n".join([*lines, "passed" if report.passed else "failed"])


async def _until(ended: asyncio.Event, *, stdin: bool) -> None:
    """Return when *ended* is set, or, for a child process, when its parent has gone."""
    if not stdin:
        await ended.wait()
        return
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            ended.set()

    loop.add_reader(sys.stdin.fileno(), look)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())


def _tell(program: Program, settings: Path, *, json: bool) -> None:
    where = {**program.status(), "settings": str(settings), "ledger": str(program.options.ledger)}
    (program.options.ledger / "sandbox.json").write_bytes(orjson.dumps(where))
    if json:
        print(orjson.dumps({"kind": "sandbox", **where}).decode(), flush=True)
        return
    shown = {
        "Sakari": where["sakari_url"],
        "Users API": where["users_url"],
        "control": where["control_url"],
        "ledger": where["ledger"],
        "settings": where["settings"],
    }
    print("\n".join(f"{name:<10} {value}" for name, value in shown.items()), flush=True)
