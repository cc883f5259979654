"""Containers of the project's image, as deploy/README.md runs them: a read-only root, no rights at all."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

#: Made by `make test-containers`.
IMAGE = os.environ.get("PIPELINE_TEST_IMAGE", "sakari-users-pipeline:test")
START_S = 180
#: Above what the slowest command says nothing for: the oracle waits for a pipeline to settle.
ENGINE_TIMEOUT_S = 300
UNCHECKED = {"test": ["NONE"]}


def hardened(
    *command: str,
    ready: str,
    image: str = IMAGE,
    name: str = "",
    network: "Network | None" = None,
    **options: Any,
) -> "DockerContainer":
    """
    A container of `pipeline` with *command*, to be started: its start returns when its output has *ready*.

    *name* is its host name on *network*; *options* are docker-py's.
    """
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    container = DockerContainer(image, docker_client_kw={"timeout": ENGINE_TIMEOUT_S}).with_command(
        list(command)
    )
    container.with_tmpfs_mount("/tmp").waiting_for(
        LogMessageWaitStrategy(ready).with_startup_timeout(START_S).with_poll_interval(0.1)
    )
    if network is not None:
        container.with_network(network).with_network_aliases(name)
    return container.with_kwargs(
        read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], hostname=name or None, **options
    )


def hardened_broker(
    port: int, *, advertised_host: str, image: str = IMAGE, network: "Network | None" = None
) -> "DockerContainer":
    """The image's own Kafka, that clients reach at *advertised_host*:*port*."""
    where = ("--port", str(port), "--host", "0.0.0.0", "--advertised-host", advertised_host)
    return hardened(
        *("broker", "--json", "--data-dir", "/var/lib/pipeline/kafka", *where),
        ready='"kind":"broker"',
        image=image,
        name=advertised_host if network is not None else "",
        network=network,
        healthcheck=UNCHECKED,
    )
