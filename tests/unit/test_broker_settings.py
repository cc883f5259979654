"""The settings and the format of the embedded Kafka's folder."""

from pathlib import Path

import pytest

from pipeline.errors import BrokerError
from pipeline.runtime.broker_settings import cluster_id, format_folder, node_settings, server_properties


@pytest.fixture
def bootstrap(tmp_path: Path) -> Path:
    """A stand-in for the feature levels that Kafka wrote: only copied here."""
    path = tmp_path / "bootstrap.checkpoint"
    path.write_bytes(b"levels")
    return path


def test_one_node_needs_no_second_for_offsets_and_transactions() -> None:
    """Replication 1 and min ISR 1 on every internal topic, or a single node cannot commit."""
    settings = node_settings(port=1, controller_port=2, logs=Path("/data"))
    kinds = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    assert {settings[f"{kind}.replication.factor"] for kind in kinds} == {1}
    assert {v for k, v in settings.items() if k.endswith("min.isr")} == {1}


def test_it_listens_on_loopback_only() -> None:
    """Nothing of the embedded Kafka can be reached from another machine."""
    settings = node_settings(port=1, controller_port=2, logs=Path("/data"))
    listeners = str(settings["listeners"]).split(",")
    assert all("//127.0.0.1:" in listener for listener in listeners)


def test_others_are_sent_to_the_name_that_reaches_it() -> None:
    """What it listens on and what clients connect to are two things; the controller stays on loopback."""
    logs = Path("/data")
    settings = node_settings(port=1, controller_port=2, logs=logs, host="0.0.0.0", advertised_host="kafka")
    assert settings["listeners"] == "BROKER://0.0.0.0:1,CONTROLLER://127.0.0.1:2"
    assert settings["advertised.listeners"] == "BROKER://kafka:1"


def test_a_backslash_in_a_path_survives_the_properties_file() -> None:
    """Java reads a backslash as an escape, so it is doubled."""
    assert server_properties({"log.dirs": Path("a\\b")}) == "log.dirs=a\\\\b\n"


def test_each_format_is_a_cluster_of_its_own(tmp_path: Path, bootstrap: Path) -> None:
    """Two folders never share an id, and both have the feature levels."""
    for name in ("one", "two"):
        format_folder(tmp_path / name, bootstrap)
    assert cluster_id(tmp_path / "one") != cluster_id(tmp_path / "two")
    assert (tmp_path / "two" / bootstrap.name).read_bytes() == b"levels"


def test_an_unfinished_format_is_none(tmp_path: Path) -> None:
    """Without its last file a folder has no cluster id."""
    (tmp_path / "meta.properties.new").write_text("cluster.id=abc\n")
    assert cluster_id(tmp_path) == ""


def test_a_cluster_that_lost_its_id_is_never_overwritten(tmp_path: Path, bootstrap: Path) -> None:
    """Data without an id is left alone, and the error says what to do."""
    data = tmp_path / "data"
    (data / "__cluster_metadata-0").mkdir(parents=True)
    with pytest.raises(BrokerError, match="move the folder away"):
        format_folder(data, bootstrap)
