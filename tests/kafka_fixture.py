"""
The Kafka of the tests, one per session, chosen by ``PIPELINE_TEST_KAFKA``.

``embedded``, ``container`` or ``HOST:PORT``; by default a container where a Docker engine answers and
has the image (``PIPELINE_TEST_KAFKA_IMAGE``, default ``apache/kafka:4.3.0``), else embedded. The image is
Kafka's own or the project's, which holds a Kafka too. There is always one: a Kafka that cannot start
fails the tests, it does not skip them.
"""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.broker_settings import node_settings

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

CHOICE = "PIPELINE_TEST_KAFKA"
IMAGE = os.environ.get("PIPELINE_TEST_KAFKA_IMAGE", "apache/kafka:4.3.0")
CONTROLLER_PORT = 29093
STARTED = r"Kafka Server started"


@asynccontextmanager
async def running_kafka(choice: str | None = None) -> AsyncIterator[str]:
    """Yield the bootstrap servers of the Kafka that *choice*, by default the environment, names."""
    wanted = choice or os.environ.get(CHOICE) or ("container" if engine_has_image(IMAGE) else "embedded")
    if wanted == "embedded":
        async with EmbeddedBroker() as broker:
            yield broker.bootstrap_servers
    elif wanted == "container":
        async with _container(IMAGE) as servers:
            yield servers
    elif ":" in wanted:
        yield wanted
    else:
        raise ValueError(f"{CHOICE} is {wanted!r}; it can be embedded, container or HOST:PORT")


def engine_has_image(image: str) -> bool:
    """Return whether a Docker engine answers and has *image* already."""
    return _entrypoint(image) is not None


def _entrypoint(image: str) -> list[str] | None:
    """Return what *image* starts; None where no Docker engine answers or it has no such image."""
    import docker  # type: ignore[import-untyped]
    from docker.errors import DockerException  # type: ignore[import-untyped]
    from requests import RequestException

    if not _engine_listens():
        return None
    try:
        client = docker.DockerClient.from_env(timeout=5)
    except DockerException:
        return None
    try:
        return client.images.get(image).attrs["Config"]["Entrypoint"] or []
    except (DockerException, RequestException):
        return None
    finally:
        client.close()


def _engine_listens() -> bool:
    """Return whether anybody listens at Docker's socket; its own client would leak one to find out."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as engine:
        return engine.connect_ex(host.removeprefix("unix://")) == 0


def container_environment(port: int) -> dict[str, str]:
    """Return the environment of Kafka's own image for one node that clients reach at 127.0.0.1:*port*."""
    settings = node_settings(port=port, controller_port=CONTROLLER_PORT, logs=Path("/tmp/kafka"))
    settings["listeners"] = f"BROKER://0.0.0.0:{port},CONTROLLER://127.0.0.1:{CONTROLLER_PORT}"
    return {f"KAFKA_{name.upper().replace('.', '_')}": str(value) for name, value in settings.items()}


@asynccontextmanager
async def _container(image: str) -> AsyncIterator[str]:
    from tests.containers.hardened import hardened_broker

    port = _free_port()
    if _entrypoint(image) == ["pipeline"]:
        container = hardened_broker(port, advertised_host="127.0.0.1", image=image)
    else:
        container = _kafkas_own(port, image)
    with container.with_bind_ports(port, port):
        yield f"127.0.0.1:{port}"


def _kafkas_own(port: int, image: str) -> "DockerContainer":
    """A container of the image that Kafka's own project makes."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    started = LogMessageWaitStrategy(STARTED).with_startup_timeout(60)
    container = DockerContainer(image).waiting_for(started)
    for name, value in container_environment(port).items():
        container.with_env(name, value)
    return container


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
