"""`pipeline sandbox`: both APIs, sample traffic and the ledger, alone; `verify` is the oracle on its own."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import cyclopts
import orjson

from pipeline import logs
from pipeline.cli.stopping import stopped_by_signals
from pipeline.sandbox.program import DEFAULT_NAMES, Options, Program, opened
from pipeline.sandbox.settings_file import written

__all__ = ["app"]

app = cyclopts.App(name="sandbox", help="Sandboxes of both APIs, with sample traffic.")


@app.default
async def sandbox(
    *,
    ledger: Path = Path(".pipeline/sandbox"),
    receiver: str = "",
    rate: float = 20.0,
    count: int | None = None,
    seed: int = 7,
    tenants: Annotated[tuple[str, ...], cyclopts.Parameter(negative="")] = DEFAULT_NAMES,
    faults: bool = True,
    bootstrap_servers: str = "",
    receiver_port: int = 0,
    control_port: int = 0,
    until_stdin_closes: Annotated[bool, cyclopts.Parameter(show=False)] = False,
    json: bool = False,
) -> None:
    """
    Serve both APIs until Ctrl-C, keep a ledger of what really happened, and send sample traffic.

    Into the ledger's folder it also writes ``settings.yaml``, with which `pipeline run` works against it.

    Examples::

        pipeline sandbox                                     # serves; traffic begins when told to
        pipeline sandbox --receiver http://127.0.0.1:8080    # sends webhooks there
        pipeline sandbox --ledger /tmp/run1 --seed 3 --rate 200 --json

    Parameters
    ----------
    ledger
        Folder of the ledger and the settings; must not hold another ledger.
    receiver
        Base URL of the pipeline's receiver. Without it traffic begins when the control port is told so.
    rate
        Webhooks per second.
    count
        Stop the traffic after so many webhooks; serve on.
    seed
        Of the traffic; the same seed tells the same story.
    tenants
        Names of the customers.
    faults
        Let a few webhooks be lost, doubled, delayed and overtaken.
    bootstrap_servers
        Written into the settings.
    receiver_port
        Written into the settings.
    control_port
        Where traffic and faults are switched; 0 takes a free one.
    json
        Print one line of JSON instead of text.
    """
    logs.configure("info", "json" if json else "auto")
    options = Options(
        ledger=ledger, seed=seed, rate=rate, tenants=tenants, faults=faults, control_port=control_port
    )
    ended = asyncio.Event()
    with stopped_by_signals(ended.set):
        async with opened(options) as program:
            settings = written(
                program, ledger, bootstrap_servers=bootstrap_servers, receiver_port=receiver_port
            )
            _tell(program, settings, json=json)
            if receiver:
                program.subscribe(receiver)
                program.start(count=count)
            await _until(ended, stdin=until_stdin_closes)
            await program.stop()


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
