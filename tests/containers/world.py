"""Broker, sandbox and pipelines as containers on a network of their own, reached by name."""

import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import orjson
from docker.models.containers import Container  # type: ignore[import-untyped]
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.network import Network

from tests.containers.hardened import IMAGE, START_S, UNCHECKED, hardened, hardened_broker

KAFKA = "kafka:9092"
CONTROL_PORT = 8090
RECEIVER_PORT = 8080
SHARED = "/etc/pipeline"
LEDGER = f"{SHARED}/ledger"
SETTINGS = f"{LEDGER}/settings.yaml"
SETTLE_S = 200
SENT_S = 120.0
#: After the sandbox's start: time for three pipelines to start.
CLOSES_S = 45


class World:
    """What pipelines work with: a Kafka with its topics, and a sandbox that sends webhooks to them."""

    def __init__(self, network: Network, volume: str, sandbox: DockerContainer) -> None:
        self._network = network
        self._volume = volume
        self._sandbox = sandbox
        port = sandbox.get_exposed_port(CONTROL_PORT)
        self._control = f"http://{sandbox.get_container_host_ip()}:{port}"

    def pipeline(self, name: str, *arguments: str) -> DockerContainer:
        """`pipeline run` as the host *name*; its start returns when it is ready."""
        command = ("run", "--json", "--settings", SETTINGS, *arguments)
        container = hardened(*command, ready='"kind":"ready"', name=name, network=self._network)
        return container.with_volume_mapping(self._volume, SHARED, "ro")

    def send(self, receiver: str, rate: float) -> None:
        """Let webhooks flow to the pipeline named *receiver*, *rate* a second."""
        self._asked("PUT", "/traffic", {"receiver": f"http://{receiver}:{RECEIVER_PORT}", "rate": rate})

    def stop(self) -> None:
        """Let no further webhook be made."""
        self._asked("DELETE", "/traffic")

    def sent(self, more: int) -> None:
        """Return when so many *more* webhooks were made."""
        until = self._asked("GET", "/status")["webhooks_sent"] + more
        ends = time.monotonic() + SENT_S
        while (made := self._asked("GET", "/status")["webhooks_sent"]) < until:
            assert time.monotonic() < ends, f"only {made} of {until} webhooks were made"
            time.sleep(0.2)

    def verified(self) -> dict[str, Any]:
        """What `pipeline sandbox verify` says, once nothing is left to do."""
        command = ["pipeline", "sandbox", "verify", "--ledger", LEDGER, "--wait", str(SETTLE_S), "--json"]
        _, output = self._sandbox.exec(command)
        found = [line for line in output.splitlines() if line.startswith(b'{"kind":"verified"')]
        assert found, output.decode()
        report: dict[str, Any] = orjson.loads(found[-1])
        return report

    def _asked(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        request = urllib.request.Request(self._control + path, orjson.dumps(body), method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = orjson.loads(answer.read())
            return found


def wrapped(container: DockerContainer) -> Container:
    """The engine's own view of *container*, as it is now."""
    found = container.get_wrapped_container()
    found.reload()
    return found


def until_said(container: DockerContainer, text: str, times: int) -> None:
    """Return when *container*'s output has *text* so many *times*."""
    ends = time.monotonic() + START_S
    while wrapped(container).logs().count(text.encode()) < times:
        assert time.monotonic() < ends, f"{text} not {times} times in: {wrapped(container).logs(tail=30)!r}"
        time.sleep(0.1)


def until_handled(container: DockerContainer, number: int) -> None:
    """Return when process 1 of *container* has a handler for the signal *number*."""
    program = "print(int(open('/proc/1/status').read().partition('SigCgt:')[2].split()[0], 16))"
    ends = time.monotonic() + START_S
    while not python(container, program) >> (number - 1) & 1:
        assert time.monotonic() < ends, f"process 1 handles no signal {number}"
        time.sleep(0.1)


def python(container: DockerContainer, program: str) -> Any:
    """What *program* prints within *container*, as JSON."""
    code, output = container.exec(["python3", "-c", program])
    assert code == 0, output.decode()
    return orjson.loads(output)


@contextmanager
def running_world() -> Iterator[World]:
    """A world of its own, gone at the end with its network and volume."""
    with ExitStack() as stack:
        network = stack.enter_context(_network())
        volume = stack.enter_context(_volume())
        stack.enter_context(hardened_broker(9092, advertised_host="kafka", network=network))
        sandbox = stack.enter_context(_sandbox(network, volume))
        code, output = sandbox.exec(["pipeline", "topics", "apply", "--settings", SETTINGS, "--yes"])
        assert code == 0, output.decode()
        yield World(network, volume, sandbox)


def _sandbox(network: Network, volume: str) -> DockerContainer:
    """`pipeline sandbox`, which writes settings and secrets into *volume* for all others to read."""
    where = ("--host", "0.0.0.0", "--advertised-host", "sandbox", "--control-port", str(CONTROL_PORT))
    given = ("--ledger", LEDGER, "--bootstrap-servers", KAFKA, "--closes-after-s", str(CLOSES_S))
    container = hardened(
        *("sandbox", "--json", *where, *given),
        ready='"kind":"sandbox"',
        name="sandbox",
        network=network,
        healthcheck=UNCHECKED,
    )
    return container.with_exposed_ports(CONTROL_PORT).with_volume_mapping(volume, SHARED, "rw")


@contextmanager
def _network() -> Iterator[Network]:
    network = Network()
    try:
        with network:
            yield network
    finally:
        network._docker.client.close()


@contextmanager
def _volume() -> Iterator[str]:
    """A volume with a folder that the image's user may write."""
    engine = DockerClient().client
    made = engine.volumes.create()
    try:
        user, _, group = engine.images.get(IMAGE).attrs["Config"]["User"].partition(":")
        engine.containers.run(
            IMAGE,
            ["-d", "-o", user, "-g", group, LEDGER],
            entrypoint="install",
            user="0",
            volumes={made.name: {"bind": SHARED, "mode": "rw"}},
            tmpfs={"/var/lib/pipeline": ""},  # instead of a volume that nobody would remove
            remove=True,
        )
        yield str(made.name)
    finally:
        made.remove()
        engine.close()
