"""What the embedded Kafka reads: its settings, its log's, and the format of a new folder."""

import base64
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import BrokerError

__all__ = ["cluster_id", "format_folder", "log4j_properties", "node_settings", "server_properties"]

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


def node_settings(*, port: int, controller_port: int, logs: Path) -> dict[str, str | int | Path]:
    """Return Kafka's settings for one node that is broker and controller, sized for a laptop."""
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"BROKER://127.0.0.1:{port}",
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


def format_folder(data: Path, bootstrap: Path) -> None:
    """
    Make the folder *data* a new cluster with the feature levels of *bootstrap*.

    The id is written last, and at once: half a format is none. Raises BrokerError when the folder
    holds a cluster that lost its id.
    """
    if (data / "__cluster_metadata-0").exists():
        raise BrokerError(f"{data} holds a cluster without its meta.properties: move the folder away")
    data.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bootstrap, data / bootstrap.name)
    half = data / "meta.properties.new"
    half.write_text(f"version=1\nnode.id=1\ncluster.id={_new_id()}\ndirectory.id={_new_id()}\n")
    half.replace(data / "meta.properties")


def _new_id() -> str:
    """Return a Kafka uuid: url-safe base64, not beginning with a dash as Kafka's own."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text
