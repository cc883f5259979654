"""What must be true of the settings before anything starts: every problem at once, each with what to do."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.identity import Identity
from pipeline.settings import DEV_IDENTITY_SECRET, KafkaSettings, Settings, SourceSettings, Tenant
from pipeline.sources.signatures import public_keys, signing_key

__all__ = ["DEV_IDENTITY_SECRET", "NAMES", "check", "identity_of", "problems", "selected"]

#: What can be named with ``--only``.
NAMES = (
    "receiver",
    "clock",
    "poller",
    "decode",
    "broadcast",
    "enrich",
    "engagement",
    "rollup",
    "statistics",
)

#: What can be told apart by ``runtime.on_error``.
STAGES = NAMES[1:]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MIN_SECRET = 32

#: Characters; fewer can be guessed.
_MIN_SHARED_SECRET = 16


def check(settings: Settings) -> None:
    """
    Refuse what is missing or unsafe.

    Raises:
        ConfigError: with all problems.
    """
    found = list(problems(settings))
    if found:
        raise ConfigError(found)


def problems(settings: Settings) -> Iterator[str]:
    """Every problem of *settings* that can be told without the network."""
    yield from _kafka_problems(settings.kafka)
    if not settings.tenants:
        yield "tenants: missing; at least one tenant must be configured"
    yield from _identity_problems(settings)
    yield from _source_problems(settings.sources)
    yield from _told_by(lambda: public_keys(settings.receiver.users_api_keys))
    yield from _contradictions(settings)
    yield from (
        f"runtime.on_error: {_unknown(name, STAGES)}"
        for name in settings.runtime.on_error
        if name not in STAGES
    )
    if settings.profile == "production":
        yield from _unsafe(settings)
    for name, tenant in settings.tenants.items():
        yield from _tenant_problems(name, tenant)


def _kafka_problems(kafka: KafkaSettings) -> Iterator[str]:
    if not kafka.bootstrap_servers:
        yield "kafka.bootstrap_servers: missing; give host:port (`pipeline dev` brings its own Kafka)"
    if kafka.security_protocol.startswith("SASL"):
        if not kafka.sasl_username:
            yield f"kafka.sasl_username: missing; {kafka.security_protocol} needs it"
        if kafka.sasl_password is None:
            yield f"kafka.sasl_password: missing; {kafka.security_protocol} needs it"
        else:
            yield from _told_by(kafka.sasl_password.reveal, "kafka.sasl_password: ")
    if kafka.ssl_keyfile and not kafka.ssl_certfile:
        yield "kafka.ssl_certfile: missing; kafka.ssl_keyfile is the key of a certificate"
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(kafka, name)
        if file is not None and not file.is_file():
            yield f"kafka.{name}: {file} is no file"


def _identity_problems(settings: Settings) -> Iterator[str]:
    if settings.identity_secret is None:
        yield "identity_secret: missing; name a file or variable with at least 32 random characters"
        return
    try:
        secret = settings.identity_secret.reveal()
    except ConfigError as error:
        yield from (f"identity_secret: {problem}" for problem in error.problems)
        return
    if len(secret) < _MIN_SECRET:
        yield f"identity_secret: has {len(secret)} characters; at least {_MIN_SECRET} are needed"
    if secret == DEV_IDENTITY_SECRET and settings.profile == "production":
        yield "identity_secret: is the public one of `pipeline dev`; make one of your own"


def _source_problems(sources: Mapping[str, SourceSettings]) -> Iterator[str]:
    for name, source in sources.items():
        where = f"sources.{name}.secret"
        try:
            secret = source.secret.reveal()
        except ConfigError as error:
            yield from (f"{where}: {problem}" for problem in error.problems)
            continue
        if source.auth == "standard-webhooks":
            yield from _told_by(partial(signing_key, secret), f"{where}: ")
        elif len(secret) < _MIN_SHARED_SECRET:
            yield f"{where}: has {len(secret)} characters; at least {_MIN_SHARED_SECRET} are needed"


def _contradictions(settings: Settings) -> Iterator[str]:
    runtime, seen_s = settings.runtime, settings.decode.seen_days * 86_400
    if runtime.heartbeat_interval_ms * 3 > runtime.session_timeout_ms:
        yield "runtime.heartbeat_interval_ms: must be at most a third of runtime.session_timeout_ms"
    if runtime.watchdog_s * 1000 <= runtime.rebalance_timeout_ms:
        yield "runtime.watchdog_s: must be above runtime.rebalance_timeout_ms, or a rebalance looks stuck"
    if settings.poll.reconcile_days * 86_400 > seen_s:
        yield "poll.reconcile_days: must be at most decode.seen_days, or messages count twice"
    if settings.engagement.grace_s > seen_s:
        yield "engagement.grace_s: must be at most decode.seen_days, or late facts count twice"
    if settings.breaker.backoff_initial_s > settings.breaker.backoff_max_s:
        yield "breaker.backoff_initial_s: must be at most breaker.backoff_max_s"


def _tenant_problems(name: str, tenant: Tenant) -> Iterator[str]:
    if not (tenant.sakari or tenant.users):
        yield f"tenants.{name}: has neither a Sakari account nor a Users API location"
    for index, account in enumerate(tenant.sakari):
        if not account.webhook_secrets_sha256:
            yield (
                f"tenants.{name}.sakari.{index}.webhook_secrets_sha256: missing; "
                f"without one no webhook of account {account.account_id} is taken"
            )


def _unsafe(settings: Settings) -> Iterator[str]:
    for name, url in (("sakari", settings.sakari.base_url), ("users", settings.users.base_url)):
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            yield f"{name}.base_url: {parts.scheme}://{parts.hostname} is not encrypted; use https"
    if settings.kafka.security_protocol == "SASL_PLAINTEXT":
        yield "kafka.security_protocol: SASL_PLAINTEXT sends the password in clear; use SASL_SSL"
    if any(tenant.users for tenant in settings.tenants.values()) and not settings.receiver.users_api_keys:
        yield "receiver.users_api_keys: missing; without a public key no webhook of the Users API is taken"


def _told_by(act: Callable[[], object], prefix: str = "") -> Iterator[str]:
    """What *act* says against the settings."""
    try:
        act()
    except ConfigError as error:
        yield from (f"{prefix}{problem}" for problem in error.problems)


def identity_of(settings: Settings) -> Identity:
    """The identity of *settings*, which `check` has found good."""
    assert settings.identity_secret is not None
    return Identity(settings.identity_secret.reveal().encode())


def selected(only: Iterable[str]) -> frozenset[str]:
    """
    The names of *only*, all where it is empty.

    Raises:
        ConfigError: one is unknown; says which are known.
    """
    wanted = [name for given in only for part in given.split(",") if (name := part.strip())]
    found = [f"--only: {_unknown(name, NAMES)}" for name in wanted if name not in NAMES]
    if found:
        raise ConfigError(found)
    return frozenset(wanted or NAMES)


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]}?" if close else "."
    return f"{name!r} is unknown{hint} Known: {', '.join(known)}"
