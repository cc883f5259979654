"""
One frozen `Settings`, read once and passed as values.

Sources, later ones win: defaults, the YAML file, ``PIPELINE_…`` variables (``__`` for nesting).
Secrets are never written into the file: an entry names a file or a variable that holds them.
"""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import phonenumbers
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from pipeline.errors import ConfigError
from pipeline.settings_source import read_yaml, unknown_variables

__all__ = [
    "DEV_IDENTITY_SECRET",
    "AdminSettings",
    "BackfillSettings",
    "BreakerSettings",
    "ClockSettings",
    "EngagementSettings",
    "KafkaSettings",
    "LogSettings",
    "PollSettings",
    "ReceiverSettings",
    "RuntimeSettings",
    "SakariAccount",
    "SakariApiSettings",
    "SecretRef",
    "Settings",
    "SinkSettings",
    "SourceSettings",
    "Tenant",
    "UsersApiSettings",
    "UsersLocation",
    "load",
]

TENANT_NAME = re.compile(r"^[a-z0-9-]{1,32}$")


#: Names of products with code of their own: no configured source may take them.
_PRODUCTS = ("sakari", "users")


#: The identity secret of every development run, so that keys are the same in each; `pipeline run`
#: refuses it under the profile ``production``.
DEV_IDENTITY_SECRET = "pipeline-dev-identity-secret-not-for-production"  # noqa: S105 - it is public


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ignored_types=(cached_property,)
    )


class SecretRef(_Part):
    """Where a secret is kept: a file, an environment variable, or (never in a file) the value itself."""

    file: Path | None = Field(None, description="path of a file that holds the secret and nothing else")
    env: str | None = Field(None, description="name of an environment variable that holds the secret")
    value: SecretStr | None = Field(None, description="the secret; only from PIPELINE_… variables")

    @model_validator(mode="after")
    def _exactly_one(self) -> "SecretRef":
        if sum(part is not None for part in (self.file, self.env, self.value)) != 1:
            raise ValueError("name exactly one of file, env (or value, from the environment only)")
        return self

    def reveal(self) -> str:
        """
        The secret itself, without surrounding white space.

        Raises:
            ConfigError: the file or variable is missing or empty.
        """
        where, text = self._read()
        if not text.strip():
            raise ConfigError(f"{where} is empty or missing")
        return text.strip()

    def _read(self) -> tuple[str, str]:
        """Where the secret is kept, and what stands there."""
        if self.value is not None:
            return "the secret's value", self.value.get_secret_value()
        if self.env is not None:
            return f"environment variable {self.env}", os.environ.get(self.env, "")
        assert self.file is not None
        where = f"secret file {self.file}"
        try:
            return where, self.file.read_text()
        except OSError as error:
            raise ConfigError(f"{where} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            # No cause: its text quotes the secret.
            raise ConfigError(f"{where} cannot be read: it is no UTF-8 text") from None


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no IANA time zone, such as Europe/Berlin")
    return name


def _known_region(region: str) -> str:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError(f"{region!r} is no ISO 3166 country code with phone numbers, such as US")
    return region


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be a URL such as https://api.example.com, without a user or password")
    return url


HttpUrl = Annotated[str, AfterValidator(_http_url)]


class KafkaSettings(_Part):
    """How to reach Kafka."""

    bootstrap_servers: str = Field("", description="host:port,…; empty: `dev` starts an embedded Kafka")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how brokers are spoken to"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how a SASL user is proven"
    )
    sasl_username: str = Field("", description="needed by SASL protocols")
    sasl_password: SecretRef | None = Field(None, description="needed by SASL protocols")
    ssl_cafile: Path | None = Field(
        None, description="certificates of who signs the brokers'; else the system's"
    )
    ssl_certfile: Path | None = Field(None, description="our certificate, for mutual TLS")
    ssl_keyfile: Path | None = Field(None, description="the key of our certificate")


class RuntimeSettings(_Part):
    """How tasks work."""

    state_dir: Path = Field(Path(".pipeline/state"), description="folder of the local stores")
    store_memory_mb: int = Field(
        96,
        ge=16,
        description="MB for all local stores: blocks read, and half of it for what is to be written",
    )
    batch_records: int = Field(4000, ge=1, le=20_000, description="records at most in a transaction")
    cached_values: int = Field(
        100_000, ge=0, description="stored values of each stage that are kept decoded in memory"
    )
    transaction_timeout_ms: int = Field(
        15_000, ge=1_000, le=60_000, description="an open transaction of a dead task blocks readers this long"
    )
    session_timeout_ms: int = Field(
        45_000, ge=6_000, description="a silent process loses its partitions after it"
    )
    heartbeat_interval_ms: int = Field(
        1_000,
        ge=500,
        description="at most a third of the session's timeout; who stays learns so late that another left",
    )
    rebalance_timeout_ms: int = Field(
        60_000, ge=6_000, description="how long a rebalance waits for each process"
    )
    group_instance_id: str = Field(
        "",
        pattern=r"^[a-zA-Z0-9._-]{0,249}$",
        description="a name that this process keeps, such as its StatefulSet pod's: a restart within the "
        "session's timeout causes no rebalance; not with autoscaling; empty: off",
    )
    standby: int = Field(
        0,
        ge=0,
        le=1,
        description="1: keep warm copies of the state of partitions that other processes own",
    )
    request_timeout_ms: int = Field(30_000, ge=1_000, description="of one request to a broker")
    fetch_max_wait_ms: int = Field(
        50,
        ge=1,
        le=1_000,
        description="a fetch waits for records so long; the least latency of an idle topic",
    )
    stop_timeout_s: float = Field(25.0, gt=0, description="deadline of an orderly stop")
    watchdog_s: float = Field(
        120.0,
        ge=1,
        description="a stage that has work and makes no progress for so long joins anew, then ends",
    )
    on_error: dict[str, Literal["dead-letter", "stop"]] = Field(
        default_factory=dict,
        description="by stage, what an unexpected error does: dead-letter (default), or stop the stage",
    )


class AdminSettings(_Part):
    """The port of /live, /ready and /metrics."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(9464, ge=0, le=65_535, description="0 takes a free one")


class ReceiverSettings(_Part):
    """The webhook receiver."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65_535, description="0 takes a free one")
    max_body_bytes: int = Field(262_144, ge=1_024, le=921_600, description="a larger webhook is refused")
    body_timeout_s: float = Field(15.0, gt=0, le=60, description="a body that takes longer is put off")
    max_in_flight: int = Field(200, ge=1, le=10_000, description="requests at a time; more are put off")
    produce_timeout_s: float = Field(
        5.0, gt=0, le=30, description="wait for Kafka's acknowledgement; then the sender is put off"
    )
    timestamp_tolerance_s: int = Field(7_200, ge=60, description="age at most of a signed webhook")
    users_api_keys: tuple[str, ...] = Field((), description="PEM public keys (Ed25519) or paths of them")


class ClockSettings(_Part):
    """The source of time for stages."""

    interval_s: float = Field(60.0, gt=0, description="between two ticks")


class DecodeSettings(_Part):
    """The decode stage."""

    seen_days: int = Field(45, ge=1, description="days for which facts are recognised as seen")


class EngagementSettings(_Part):
    """The engagement and rollup stages."""

    grace_s: int = Field(604_800, ge=0, description="after its end, how long a window takes late facts")
    reply_window_s: int = Field(259_200, ge=1, description="an inbound message within it is a reply")
    max_tags: int = Field(50, ge=0, description="tag dimensions at most of one event")


class PollSettings(_Part):
    """Intervals between the starts of scans, in seconds, per resource; and their limits."""

    tags_s: float = Field(60.0, gt=0, description="location tags with their details")
    statistics_s: float = Field(900.0, gt=0, description="statistics")
    accounts_s: float = Field(900.0, gt=0, description="social profiles")
    users_s: float = Field(300.0, gt=0, description="users")
    users_contacts_s: float = Field(300.0, gt=0, description="Users API contacts")
    sakari_contacts_s: float = Field(300.0, gt=0, description="Sakari contacts")
    messages_s: float = Field(300.0, gt=0, description="Sakari messages")
    conversations_s: float = Field(300.0, gt=0, description="Sakari conversations")
    page_size: int = Field(100, ge=1, le=100, description="items asked for in one page")
    reconcile_days: int = Field(7, ge=1, description="messages created within are published again")
    max_pages: int = Field(10_000, ge=1, description="a scan of more pages is endless: given up")


class BackfillSettings(_Part):
    """What a backfill may take of the APIs' limits, which live work needs first."""

    share: float = Field(0.25, gt=0, le=1, description="part of each rate limit that it takes at most")
    reserve: float = Field(
        0.5, ge=0, lt=1, description="it waits while less than this part of a limit is left, as the API says"
    )


class SinkSettings(_Part):
    """The statistics sink."""

    open_interval_s: float = Field(900.0, gt=0, description="an open window is posted at most this often")
    contact_interval_s: float = Field(3_600.0, gt=0, description="a contact's fields likewise")
    expire_days: int = Field(30, ge=1, description="unposted for so long: dead letter")
    unanswered_s: float = Field(
        60.0,
        ge=0,
        description="so long an unanswered post may take effect: then the value is posted once more",
    )
    dimensions: tuple[str, ...] = Field(("all", "tag"), description="kinds of dimensions that are posted")


class BreakerSettings(_Part):
    """Back-off and circuit breaker of calls to one tenant's API."""

    backoff_initial_s: float = Field(0.5, gt=0, description="first wait after a failure; doubles")
    backoff_max_s: float = Field(60.0, gt=0, description="longest wait after a failure")
    failures_to_open: int = Field(
        5, ge=1, description="failures in a row after which nothing is sent for a while"
    )
    open_s: float = Field(30.0, gt=0, description="how long nothing is sent then")


class SakariApiSettings(_Part):
    """Sakari's API."""

    base_url: HttpUrl = Field("https://api.sakari.io", description="where the API is")
    timeout_s: float = Field(30.0, gt=0, description="of one request")
    requests_per_s: float = Field(10.0, gt=0, description="our own limit; Sakari publishes none")


class UsersApiSettings(_Part):
    """The Users API."""

    base_url: HttpUrl = Field("https://services.leadconnectorhq.com", description="where the API is")
    version: str = Field("2021-07-28", description="header Version of each request")
    timeout_s: float = Field(30.0, gt=0, description="of one request")
    requests_per_10_s: int = Field(100, ge=1, description="per location")
    requests_per_day: int = Field(200_000, ge=1, description="per location")


class SakariAccount(_Part):
    """One Sakari account of a tenant."""

    account_id: str = Field(min_length=1, description="as in the API's paths and in webhooks")
    client_id: SecretRef = Field(description="of the client credentials")
    client_secret: SecretRef = Field(description="of the client credentials")
    webhook_secrets_sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(
        (), description="SHA-256 (hex) of each accepted path secret of ≥ 128 bits"
    )


class UsersLocation(_Part):
    """One Users API location of a tenant: a static token, or OAuth with a refresh token to begin with."""

    location_id: str = Field(min_length=1, description="as in the API and in webhooks")
    company_id: str = Field("", description="agency that the location belongs to, for searching users")
    token: SecretRef | None = Field(None, description="Private Integration Token")
    client_id: SecretRef | None = Field(None, description="OAuth client")
    client_secret: SecretRef | None = Field(None, description="OAuth client's secret")
    refresh_token: SecretRef | None = Field(
        None, description="the first one; later ones are kept in the topic tokens"
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> "UsersLocation":
        oauth = (self.client_id, self.client_secret, self.refresh_token)
        if (self.token is None) == (None in oauth):
            raise ValueError("give either token, or client_id, client_secret and refresh_token")
        return self


class Tenant(_Part):
    """A customer: whose accounts and locations belong together."""

    time_zone: Annotated[str, AfterValidator(_known_zone)] = Field("UTC", description="whose days count")
    region: Annotated[str, AfterValidator(_known_region)] = Field(
        "US", description="country of phone numbers that come without one"
    )
    dialect: Literal["catalogue", "vendor"] = Field("catalogue", description="of statistics")
    accept_unverified: bool = Field(
        False, description="take unsigned Users API webhooks; they change no contact and no opt-out"
    )
    sakari: tuple[SakariAccount, ...] = Field((), description="its Sakari accounts")
    users: tuple[UsersLocation, ...] = Field((), description="its Users API locations")

    @cached_property
    def zone(self) -> ZoneInfo:
        """The tenant's time zone."""
        return ZoneInfo(self.time_zone)


class SourceSettings(_Part):
    """Another product that sends webhooks to ``/in/source/<name>/<tenant>``; paths are dotted."""

    auth: Literal["standard-webhooks", "shared-secret"] = Field(description="how its webhooks are proven")
    secret: SecretRef = Field(description="signing secret (whsec_…), or the shared one")
    header: str = Field("X-Webhook-Secret", description="of the shared secret")
    type_path: str = Field("type", description="where the event's type stands")
    id_path: str = Field("id", description="where the event's id stands; without one its content is its id")
    time_path: str = Field("", description="empty: the time of arrival")
    phone_path: str = Field("", description="where the contact's phone number stands; empty: no contact")
    country_path: str = Field("", description="where that number's country stands (ISO 3166)")


class LogSettings(_Part):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="what is less is left out"
    )
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: JSON when no terminal")


class Settings(BaseSettings):
    """Everything that `pipeline run` can be told."""

    model_config = SettingsConfigDict(
        env_prefix="PIPELINE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    application_id: str = Field(
        "pipeline", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$", description="prefix of groups and transactions"
    )
    profile: Literal["dev", "production"] = Field(
        "production", description="sizes of topics; production refuses what is unsafe"
    )
    identity_secret: SecretRef | None = Field(None, description="≥ 32 characters; never rotated")
    kafka: KafkaSettings = KafkaSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    admin: AdminSettings = AdminSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    clock: ClockSettings = ClockSettings()
    decode: DecodeSettings = DecodeSettings()
    engagement: EngagementSettings = EngagementSettings()
    poll: PollSettings = PollSettings()
    backfill: BackfillSettings = BackfillSettings()
    sink: SinkSettings = SinkSettings()
    breaker: BreakerSettings = BreakerSettings()
    sakari: SakariApiSettings = SakariApiSettings()
    users: UsersApiSettings = UsersApiSettings()
    log: LogSettings = LogSettings()
    tenants: dict[str, Tenant] = Field(default_factory=dict)
    sources: dict[str, SourceSettings] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, field by field."""
        return env_settings, init_settings

    @field_validator("tenants")
    @classmethod
    def _names_and_owners(cls, tenants: dict[str, Tenant]) -> dict[str, Tenant]:
        problems = [
            f"tenant name {name!r}: use 1–32 of a–z, 0–9 and -"
            for name in tenants
            if not TENANT_NAME.fullmatch(name)
        ]
        owners: dict[str, str] = {}
        for name, tenant in tenants.items():
            for owned in [a.account_id for a in tenant.sakari] + [p.location_id for p in tenant.users]:
                if owned not in owners:
                    owners[owned] = name
                elif owners[owned] != name:
                    problems.append(
                        f"{owned} belongs to both {owners[owned]} and {name}; it can be one's only"
                    )
                else:
                    problems.append(f"{owned} stands in {name} twice; keep one")
        if problems:
            raise ValueError("\n".join(problems))
        return tenants

    @field_validator("sources")
    @classmethod
    def _source_names(cls, sources: dict[str, SourceSettings]) -> dict[str, SourceSettings]:
        problems = [
            f"source name {name!r}: use 1–32 of a–z, 0–9 and -, other than {' and '.join(_PRODUCTS)}"
            for name in sources
            if not TENANT_NAME.fullmatch(name) or name in _PRODUCTS
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return sources


def load(file: Path | None = None) -> Settings:
    """
    Read the settings from *file* (YAML) and the environment.

    Raises:
        ConfigError: anything is wrong; all problems at once, each naming its field.
    """
    problems: list[str] = []
    values = read_yaml(file, problems) if file else {}
    problems += unknown_variables(Settings.model_fields)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += [told for item in error.errors() for told in _told(item)]
        raise ConfigError(problems) from None
    except SettingsError as error:
        raise ConfigError([*problems, f"environment: {error}; a PIPELINE_… variable is no JSON"]) from None
    if problems:
        raise ConfigError(problems)
    return settings


def _told(item: Any) -> list[str]:
    where = ".".join(str(part) for part in item["loc"]) or "settings"
    text = item["msg"].removeprefix("Value error, ")
    return [f"{where}: {one}" for one in text.split("\n")]
