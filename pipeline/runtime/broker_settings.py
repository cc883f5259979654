"""What the embedded Kafka reads: its settings, its log's, and the format of a new folder."""

import base64
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import final

import msgspec

from pipeline.errors import BrokerError

__all__ = [
    "LOOPBACK",
    "Seat",
    "cluster_id",
    "format_folder",
    "log4j_properties",
    "new_id",
    "node_settings",
    "server_properties",
]

LOOPBACK = "127.0.0.1"
LOG4J = """\
status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{{ISO8601}} %-5p %c{{1}} %m%n
appender.file.policies.type=SizeBasedTriggeringPolicy
appender.file.policies.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
"""


def node_settings(
    *, port: int, controller_port: int, logs: Path, host: str = LOOPBACK, advertised_host: str = LOOPBACK
) -> dict[str, str | int | Path]:
    """
    Return Kafka's settings for one node that is broker and controller, sized for a laptop.

    It listens on *host* and tells clients to come to *advertised_host*; its controller is for itself alone.
    """
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"BROKER://{host}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"BROKER://{advertised_host}:{port}",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": logs,
        "auto.create.topics.enable": "false",
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,  # tests of a lost member would wait for 6 s
        "log.message.timestamp.after.max.ms": 3_600_000,  # Kafka's default, relied upon: say so
        "log.cleaner.dedupe.buffer.size": 16 * 2**20,  # 128 MB by default, a quarter of our heap
        "log.segment.bytes": 256 * 2**20,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }


@final
class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """
    The place of one node in a cluster of several on this machine: its own ports, and everybody's.

    Clients are told *advertised_port*, which may be that of a proxy; the other nodes come to *peer_port*.
    """

    node_id: int
    cluster: str  #: id of the cluster, a Kafka uuid
    port: int
    advertised_port: int
    peer_port: int
    controller_ports: tuple[int, ...]  #: of node 1, 2, …

    @property
    def settings(self) -> dict[str, str | int | Path]:
        """What differs from a node that is alone: nothing is lost, and all go on, when one node dies."""
        nodes = len(self.controller_ports)
        voters = [f"{n}@{LOOPBACK}:{port}" for n, port in enumerate(self.controller_ports, 1)]
        own = self.controller_ports[self.node_id - 1]
        kinds = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        return {
            "node.id": self.node_id,
            "controller.quorum.voters": ",".join(voters),
            "listeners": f"CLIENT://{LOOPBACK}:{self.port},BROKER://{LOOPBACK}:{self.peer_port},"
            f"CONTROLLER://{LOOPBACK}:{own}",
            "advertised.listeners": f"CLIENT://{LOOPBACK}:{self.advertised_port},"
            f"BROKER://{LOOPBACK}:{self.peer_port}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "default.replication.factor": nodes,
            "min.insync.replicas": nodes // 2 + 1,
            **{f"{kind}.replication.factor": nodes for kind in kinds},
            **{f"{kind}.min.isr": nodes // 2 + 1 for kind in kinds[1:]},
            "broker.session.timeout.ms": 6_000,  # a node that is silent for so long leads nothing any more
            "broker.heartbeat.interval.ms": 1_000,
            "replica.lag.time.max.ms": 10_000,
        }


def server_properties(settings: Mapping[str, str | int | Path]) -> str:
    """Return *settings* as a Java properties file."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())


def _escaped(value: object) -> str:
    """Return *value* for a Java properties file, where a backslash escapes."""
    return str(value).replace("\\", "\\\\")


def log4j_properties(log: Path) -> str:
    """Return Kafka's logging: all from info into *log*, at most 30 MB in three files."""
    return LOG4J.format(log=_escaped(log))


def cluster_id(data: Path) -> str:
    """Return the id of the cluster in the folder *data*, empty when it is not formatted."""
    try:
        lines = (data / "meta.properties").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    return next(
        (line.removeprefix("cluster.id=").strip() for line in lines if line.startswith("cluster.id=")), ""
    )


def format_folder(data: Path, bootstrap: Path, *, node_id: int = 1, cluster: str = "") -> None:
    """
    Make the folder *data* a new cluster, or a node of *cluster*, with the feature levels of *bootstrap*.

    The id is written last, and at once: half a format is none. Raises BrokerError when the folder
    holds a cluster that lost its id.
    """
    if (data / "__cluster_metadata-0").exists():
        raise BrokerError(f"{data} holds a cluster without its meta.properties: move the folder away")
    data.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bootstrap, data / bootstrap.name)
    half = data / "meta.properties.new"
    ids = f"node.id={node_id}\ncluster.id={cluster or new_id()}\ndirectory.id={new_id()}\n"
    half.write_text(f"version=1\n{ids}")
    half.replace(data / "meta.properties")


def new_id() -> str:
    """Return a Kafka uuid: url-safe base64, not beginning with a dash as Kafka's own."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text
