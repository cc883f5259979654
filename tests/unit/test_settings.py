"""Settings: where they come from, what is refused, and what is never shown."""

import math
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.settings import SecretRef, Settings, Tenant, load

HUSH = "hush-hush-very-secret"
SECRET = {"env": "SOME_SECRET"}
SAKARI = {"account_id": "a1", "client_id": SECRET, "client_secret": SECRET}
USERS = {"location_id": "l1", "token": SECRET}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes settings to a file and gives its path; the environment has none of its own."""
    file = tmp_path / "pipeline.yaml"

    def write(content: Any) -> Path:
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return file

    return write


def problems(file: Path | None = None) -> tuple[str, ...]:
    """What `load` says is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert HUSH not in "".join(traceback.format_exception(caught.value))
    return caught.value.problems


class TestSources:
    """Where settings come from."""

    def test_nothing_given_is_the_defaults(self) -> None:
        """Everything has a default but what has none."""
        settings = load()
        assert (settings.receiver.max_in_flight, settings.poll.tags_s, settings.tenants) == (200, 60.0, {})

    def test_the_environment_wins_over_the_file_field_by_field(
        self, written: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A variable replaces one field and leaves its neighbours."""
        monkeypatch.setenv("PIPELINE_RECEIVER__PORT", "8081")
        settings = load(written({"receiver": {"port": 1, "host": "0.0.0.0"}, "admin": {"port": 2}}))
        assert (settings.receiver.port, settings.receiver.host, settings.admin.port) == (8081, "0.0.0.0", 2)

    def test_lists_are_json_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever has a list can be set by a variable."""
        monkeypatch.setenv("PIPELINE_SINK__DIMENSIONS", '["all"]')
        assert load().sink.dimensions == ("all",)

    def test_settings_are_frozen(self) -> None:
        """They are read once and passed as values."""
        settings = Settings(tenants={"acme": Tenant()})
        for part in (settings, settings.receiver, settings.tenants["acme"]):
            with pytest.raises(ValidationError, match="frozen"):
                setattr(part, next(iter(type(part).model_fields)), 1)

    def test_defaults_are_not_shared(self) -> None:
        """One process's tenants are not another's."""
        first = Settings()
        assert first.tenants is not Settings().tenants

    def test_a_tenants_zone_is_that_of_its_name(self) -> None:
        """Days are counted in it."""
        assert Tenant(time_zone="America/St_Johns").zone.key == "America/St_Johns"


class TestProblems:
    """What is refused, and how it is told."""

    def test_every_problem_is_told_at_once(self, written: Any) -> None:
        """One run is enough to see all that is wrong, each with its field."""
        file = written(
            {
                "profile": "prod",
                "kafka": {"bootstrap_server": "x:1"},
                "clock": {"interval_s": 0},
                "poll": {"tags_s": math.inf},
                "sakari": {"base_url": "api.sakari.io"},
                "tenants": {
                    "acme": {"time_zone": "Mars", "region": "QQ", "users": [{"location_id": "l1"}]},
                    "bolt": {"sakari": [{**SAKARI, "webhook_secrets_sha256": ["zz"]}]},
                },
            }
        )
        told = problems(file)
        assert [problem.split(":")[0] for problem in told] == [
            "profile",
            "kafka.bootstrap_server",
            "clock.interval_s",
            "poll.tags_s",
            "sakari.base_url",
            "tenants.acme.time_zone",
            "tenants.acme.region",
            "tenants.acme.users.0",
            "tenants.bolt.sakari.0.webhook_secrets_sha256.0",
        ]

    def test_an_account_belongs_to_one_tenant(self, written: Any) -> None:
        """Names and owners are checked together, each problem on its own line."""
        tenants = {
            "Acme!": {"sakari": [SAKARI]},
            "bolt": {"sakari": [SAKARI]},
            "cedar": {"users": [USERS, USERS]},
        }
        assert problems(written({"tenants": tenants})) == (
            "tenants: tenant name 'Acme!': use 1–32 of a–z, 0–9 and -",
            "tenants: a1 belongs to both Acme! and bolt; it can be one's only",
            "tenants: l1 stands in cedar twice; keep one",
        )

    @pytest.mark.parametrize("name", ["sakari", "users", "Survey", "a/b", "a" * 33, "survey\n"])
    def test_a_source_has_a_name_of_its_own(self, written: Any, name: str) -> None:
        """No configured source can be taken for one of the two products, or break a path."""
        (told,) = problems(written({"sources": {name: {"auth": "shared-secret", "secret": SECRET}}}))
        assert told.startswith(f"sources: source name {name!r}")

    def test_a_name_that_stands_twice_is_told_with_its_line(self, written: Any) -> None:
        """YAML would let the last one win without a word."""
        file = written("tenants:\n  acme: {}\n  bolt: {}\n  acme: {region: DE}\n")
        assert problems(file) == (f"{file}:4: tenants.acme: stands here twice; keep one",)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"a: [", ":1: is no YAML"),
            (b"\xff\xfe\x00", "is no UTF-8 text"),
            (b"- a\n- b\n", "must be a mapping"),
            (b"1: x\n", "must be a mapping"),
            (b"just text", "must be a mapping"),
            (b"a: \x01", "is no YAML"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_told(self, tmp_path: Path, content: bytes, told: str) -> None:
        """Whatever the file holds, the error names it and what is wrong."""
        file = tmp_path / "bad.yaml"
        file.write_bytes(content)
        (problem,) = problems(file)
        assert problem.startswith(str(file))
        assert told in problem

    def test_a_file_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        """By name and reason."""
        assert problems(tmp_path / "none.yaml")[0].endswith("cannot be read: No such file or directory")

    def test_a_variable_that_is_no_json_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A part of the settings as a variable must be JSON; its text is not quoted."""
        monkeypatch.setenv("PIPELINE_KAFKA", HUSH)
        (told,) = problems()
        assert 'field "kafka"' in told

    @pytest.mark.parametrize("name", ["PIPELINE_KAFKKA__BOOTSTRAP_SERVERS", "PIPELINE_PROFIL"])
    def test_a_misspelt_variable_is_told(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """It would else do nothing."""
        monkeypatch.setenv(name, "x")
        (told,) = problems()
        assert told.startswith(f"environment variable {name}: names no setting; did you mean")

    def test_variables_of_the_platform_are_let_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kubernetes sets variables for a service named ``pipeline``."""
        monkeypatch.setenv("PIPELINE_PORT_8080_TCP_ADDR", "10.0.0.1")
        monkeypatch.setenv("PIPELINE_SERVICE_HOST", "10.0.0.1")
        assert load() == Settings()

    @pytest.mark.parametrize(
        "location",
        [{}, {"token": SECRET, "client_id": SECRET, "client_secret": SECRET, "refresh_token": SECRET}],
    )
    def test_a_location_has_exactly_one_way_in(self, written: Any, location: dict[str, Any]) -> None:
        """Neither none nor two."""
        tenants = {"acme": {"users": [{"location_id": "l1", **location}]}}
        (told,) = problems(written({"tenants": tenants}))
        assert (
            told == "tenants.acme.users.0: give either token, or client_id, client_secret and refresh_token"
        )


class TestSecrets:
    """What is kept elsewhere, and never shown."""

    def test_a_secret_in_the_file_is_refused(self, written: Any) -> None:
        """However deep it stands; the secret itself is not repeated."""
        tenants = {"acme": {"sakari": [{**SAKARI, "client_secret": {"value": HUSH}}]}}
        (told,) = problems(written({"tenants": tenants}))
        assert told.startswith(
            "tenants.acme.sakari.0.client_secret.value: a secret may not stand in the file"
        )

    def test_a_secret_written_as_plain_text_is_refused_and_not_shown(self, written: Any) -> None:
        """A misunderstanding does not end in a log."""
        told = problems(written({"identity_secret": HUSH, "kafka": {"sasl_password": HUSH}}))
        assert [problem.split(":")[0] for problem in told] == ["identity_secret", "kafka.sasl_password"]

    def test_secrets_come_from_files_variables_and_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without surrounding white space."""
        file = tmp_path / "secret"
        file.write_text(f"{HUSH}\n")
        monkeypatch.setenv("SOME_SECRET", f" {HUSH} ")
        monkeypatch.setenv("PIPELINE_IDENTITY_SECRET__VALUE", f"{HUSH}\t")
        refs = [SecretRef(file=file), SecretRef(env="SOME_SECRET"), load().identity_secret]
        assert [ref.reveal() if ref else None for ref in refs] == [HUSH] * 3

    def test_a_secret_that_is_missing_or_empty_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each by where it should be, and a binary file without what it holds."""
        monkeypatch.setenv("EMPTY", " \n")
        binary, empty = tmp_path / "binary", tmp_path / "empty"
        binary.write_bytes(HUSH.encode() + b"\xff")
        empty.write_text("\n")
        refs = [SecretRef(file=tmp_path / "none"), SecretRef(file=binary), SecretRef(file=empty)]
        refs += [SecretRef(env="EMPTY"), SecretRef(env="UNSET"), SecretRef.model_validate({"value": "  "})]
        for ref in refs:
            with pytest.raises(ConfigError, match=r"cannot be read|is empty or missing") as caught:
                ref.reveal()
            assert HUSH not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("given", [{}, {"env": "A", "file": "b"}, {"env": "A", "value": "b"}])
    def test_a_secret_is_kept_in_exactly_one_place(self, given: dict[str, str]) -> None:
        """Which one counts is never a guess."""
        with pytest.raises(ValidationError, match="name exactly one"):
            SecretRef.model_validate(given)

    def test_secrets_are_never_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither in text, nor in a dump as JSON, nor in the error of another field."""
        monkeypatch.setenv("PIPELINE_IDENTITY_SECRET__VALUE", HUSH)
        settings = load()
        assert settings.identity_secret is not None
        for shown in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"):
            assert HUSH not in shown
        monkeypatch.setenv("PIPELINE_IDENTITY_SECRET__FILE", "also")
        assert problems() == (
            "identity_secret: name exactly one of file, env (or value, from the environment only)",
        )
