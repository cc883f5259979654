"""`pipeline broker`: the embedded Kafka alone, for other processes of this machine."""

from pathlib import Path

import orjson

from pipeline.cli.stopping import stopped_by_signals
from pipeline.dev.progress import ProgressLines
from pipeline.errors import ConfigError
from pipeline.runtime.broker import DEFAULT_DATA_DIR, EmbeddedBroker
from pipeline.runtime.broker_settings import LOOPBACK

__all__ = ["broker"]

EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on


async def broker(
    *,
    data_dir: Path = DEFAULT_DATA_DIR,
    ephemeral: bool = False,
    port: int = 0,
    host: str = LOOPBACK,
    advertised_host: str = "",
    json: bool = False,
) -> None:
    """
    Run a real Kafka on this machine until Ctrl-C or SIGTERM.

    Its first start downloads 45 MB from Maven Central; later ones need no network and take a second.
    What it serves stays in the data folder.

    Exit codes: 0 stopped, 1 Kafka could not start or ended by itself, 2 clients could not come to it.

    Examples::

        pipeline broker                             # keeps its data in .pipeline/kafka
        pipeline broker --ephemeral --json          # one JSON line, nothing kept
        pipeline broker --port 9092 --data-dir /srv/kafka
        pipeline broker --port 9092 --host 0.0.0.0 --advertised-host kafka    # for other machines, unsecured

    Parameters
    ----------
    data_dir
        The folder that keeps the cluster: the same folder is the same cluster again.
    ephemeral
        Keep nothing: a temporary folder, removed at the end.
    port
        The port; 0 takes a free one.
    host
        The address to listen on. Whoever reaches it may do anything: there is no password.
    advertised_host
        The name by which clients reach it from where they are; default: the address it listens on.
    json
        Print one line of JSON instead of text.
    """
    if host in EVERY_ADDRESS and not advertised_host:
        raise ConfigError(f"--host {host} is no address to come to: name one with --advertised-host")
    with stopped_by_signals():
        async with EmbeddedBroker(
            None if ephemeral else data_dir,
            port=port,
            host=host,
            advertised_host=advertised_host,
            on_progress=ProgressLines(),
        ) as kafka:
            print(_line(kafka) if json else _text(kafka), flush=True)
            await kafka.wait()


def _line(kafka: EmbeddedBroker) -> str:
    """Return where *kafka* is as one line of JSON."""
    fields = {
        "kind": "broker",
        "bootstrap_servers": kafka.bootstrap_servers,
        "data_dir": str(kafka.data_dir),
        "ephemeral": kafka.ephemeral,
        "pid": kafka.pid,
        "kafka_version": kafka.version,
        "cluster_id": kafka.cluster_id,
    }
    return orjson.dumps(fields).decode()


def _text(kafka: EmbeddedBroker) -> str:
    """Return where *kafka* is as aligned lines."""
    kept = "removed at the end" if kafka.ephemeral else "kept"
    return (
        f"Kafka {kafka.version}       process {kafka.pid}\n"
        f"bootstrap servers {kafka.bootstrap_servers}\n"
        f"data              {kafka.data_dir} ({kept})\n"
        f"log               {kafka.data_dir / 'server.log'}\n"
        "Ctrl-C stops it."
    )
