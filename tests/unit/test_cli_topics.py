"""The command line as it is typed: what it prints, its exit codes, what it imports."""

import subprocess
import sys

import orjson
import pytest

from pipeline import cli
from pipeline.cli import COMMANDS, application, main
from pipeline.errors import BrokerError, ConfigError
from pipeline.topics import load

Captured = pytest.CaptureFixture[str]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_list_shows_every_topic(capsys: Captured) -> None:
    """One line a topic, not cut off in a pipe."""
    assert main(["topics", "list", "--profile", "dev"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["topic", *load()]


def test_list_in_json_is_one_object(capsys: Captured) -> None:
    """The whole contract of each topic, with the sizes of the profile."""
    assert main(["topics", "list", "--profile", "production", "--json"]) == 0
    told = orjson.loads(capsys.readouterr().out)
    events = next(topic for topic in told["topics"] if topic["name"] == "sakari.events")
    assert (told["kind"], events["partitions"], events["replication"]) == ("topics", 24, 3)


def test_describe_shows_one_topic(capsys: Captured) -> None:
    """All fields of the entry, by name."""
    assert main(["topics", "describe", "sakari.events", "--profile", "dev"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (told["key"], told["partitions"], told["producers"]) == ("contact key", "2", "decode")


def test_an_unknown_topic_is_refused_with_a_guess(capsys: Captured) -> None:
    """Exit code 2 and the topic that was probably meant."""
    assert main(["topics", "describe", "sakari.event", "--profile", "dev"]) == 2
    assert "did you mean 'sakari.events'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["topcs"], "unknown command 'topcs'; did you mean 'topics'?"),
        (["topics", "lst"], "list"),
        (["topics", "list", "--profil", "dev"], "--profil"),
        (["topics", "list", "--profile", "deb"], "did you mean 'dev'?"),
        (["topics", "plan"], "kafka.bootstrap_servers: missing"),
        (["topics", "apply"], "give --yes where nobody can answer"),
        (["topics", "apply", "--json"], "give --yes where nobody can answer"),
    ],
)
def test_what_cannot_be_used_is_told_with_exit_code_2(
    words: list[str], told: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard error says what is wrong, standard output stays empty."""
    monkeypatch.delenv("PIPELINE_KAFKA__BOOTSTRAP_SERVERS", raising=False)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""


def test_a_kafka_that_is_away_fails_in_json(capsys: Captured) -> None:
    """Exit code 1; with --json the error is an object as well."""
    assert main(["topics", "plan", "--bootstrap-servers", "127.0.0.1:1", "--json"]) == 1
    told = orjson.loads(capsys.readouterr().err.splitlines()[-1])
    assert (told["kind"], told["error"]) == ("error", "BrokerError")
    assert "127.0.0.1:1" in told["problems"][0]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError(["a: wrong", "b: missing"]), 2, ["pipeline: a: wrong", "pipeline: b: missing"]),
        (BrokerError("gone, Bearer abcdefgh"), 1, ["pipeline: gone, Bearer ***"]),
        (
            ExceptionGroup("tasks", [ExceptionGroup("inner", [ConfigError("a")]), BrokerError("b")]),
            2,
            ["pipeline: a"],
        ),
        (KeyboardInterrupt(), 130, []),
    ],
)
def test_an_error_has_its_exit_code(
    error: BaseException, code: int, told: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All problems are told, masked, also out of a group of tasks."""

    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert main(["topics"]) == code
    assert capsys.readouterr().err.splitlines() == told


def test_an_unexpected_error_is_told_with_its_traceback(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug exits 1 and says where it is, without secrets."""

    def fail(_: object) -> int:
        raise RuntimeError("token=abcdefgh")

    monkeypatch.setattr(cli, "_run", fail)
    assert main(["topics"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "abcdefgh" not in told


def test_help_imports_no_command() -> None:
    """`pipeline --help` is quick because it imports no client, stage or command."""
    code = (
        "import sys; from pipeline.cli import main; main(['--help']);"
        "heavy = ('aiokafka', 'aiohttp', 'pydantic', 'rocksdict', 'duckdb', 'pipeline.runtime');"
        "print('imported:', [name for name in heavy if name in sys.modules])"
    )
    assert "imported: []" in run_python(code).stdout


def test_help_lists_every_command(capsys: Captured) -> None:
    """Each command with what it does."""
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert [name for name in COMMANDS if name in application() and name not in told] == []


def test_a_command_shows_its_own_help(capsys: Captured) -> None:
    """The summary in the list does not stand for the docstring."""
    assert main(["topics", "apply", "--help"]) == 0
    assert "Exit codes: 0" in capsys.readouterr().out


def test_version_is_the_distributions(capsys: Captured) -> None:
    """`pipeline --version` prints what is installed."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2
