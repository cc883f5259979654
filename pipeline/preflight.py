"""What must be true of the settings before anything starts: every problem at once, each with what to do."""

import difflib
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.identity import Identity
from pipeline.settings import Settings

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

#: The fixed identity secret of `pipeline dev`; refused by the profile ``production``.
DEV_IDENTITY_SECRET = "pipeline-dev-identity-secret-not-for-production"  # noqa: S105 - it is public

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MIN_SECRET = 32


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
    if not settings.kafka.bootstrap_servers:
        yield "kafka.bootstrap_servers: missing; give host:port (`pipeline dev` brings its own Kafka)"
    if not settings.tenants:
        yield "tenants: missing; at least one tenant must be configured"
    yield from _secret_problems(settings)
    if settings.profile == "production":
        yield from _unsafe(settings)
    for name, tenant in settings.tenants.items():
        if not (tenant.sakari or tenant.users):
            yield f"tenants.{name}: has neither a Sakari account nor a Users API location"
        for index, account in enumerate(tenant.sakari):
            if not account.webhook_secrets_sha256:
                yield (
                    f"tenants.{name}.sakari.{index}.webhook_secrets_sha256: missing; "
                    f"without one no webhook of account {account.account_id} is taken"
                )


def _secret_problems(settings: Settings) -> Iterator[str]:
    if settings.identity_secret is None:
        yield "identity_secret: missing; name a file or variable with at least 32 random characters"
        return
    refs = [("identity_secret", settings.identity_secret)]
    refs += [(f"sources.{name}.secret", source.secret) for name, source in settings.sources.items()]
    for where, ref in refs:
        try:
            secret = ref.reveal()
        except ConfigError as error:
            yield from (f"{where}: {problem}" for problem in error.problems)
            continue
        if where == "identity_secret" and len(secret) < _MIN_SECRET:
            yield f"identity_secret: has {len(secret)} characters; at least {_MIN_SECRET} are needed"
        if secret == DEV_IDENTITY_SECRET and settings.profile == "production":
            yield "identity_secret: is the public one of `pipeline dev`; make one of your own"


def _unsafe(settings: Settings) -> Iterator[str]:
    for name, url in (("sakari", settings.sakari.base_url), ("users", settings.users.base_url)):
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            yield f"{name}.base_url: {parts.scheme}://{parts.hostname} is not encrypted; use https"
    if settings.kafka.security_protocol == "SASL_PLAINTEXT":
        yield "kafka.security_protocol: SASL_PLAINTEXT sends the password in clear; use SASL_SSL"
    if any(tenant.users for tenant in settings.tenants.values()) and not settings.receiver.users_api_keys:
        yield "receiver.users_api_keys: missing; without a public key no webhook of the Users API is taken"


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
    wanted = [name for given in only for name in given.split(",") if name]
    found = [_unknown(name) for name in wanted if name not in NAMES]
    if found:
        raise ConfigError(found)
    return frozenset(wanted or NAMES)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, NAMES, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"--only: {name!r} is unknown{hint} Known: {', '.join(NAMES)}"
