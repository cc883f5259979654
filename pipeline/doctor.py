"""
Examines what `pipeline run` would need, piece by piece, and says of each what to do.

Nothing is changed, but that an OAuth token which is due is renewed and kept, as `run` would do. What cannot
be looked at because something before it is missing is told as well, and the rest is examined all the same.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TypeVar, final

import msgspec

from pipeline import preflight, topology
from pipeline.clients.opened import Clients
from pipeline.clients.opened import opened as clients_opened
from pipeline.clients.tokens import Sealer, TokenStore
from pipeline.codec import Codec
from pipeline.errors import BrokerError, ConfigError, UpstreamError
from pipeline.events import Fingerprint, Token
from pipeline.identity import Identity
from pipeline.logs import mask, mask_problem
from pipeline.runtime.admin import Admin
from pipeline.runtime.connection import Connection
from pipeline.runtime.table import KafkaTable
from pipeline.runtime.topic_plan import Plan, wanted
from pipeline.settings import SakariAccount, SecretRef, Settings, UsersLocation, load
from pipeline.topics import load as load_topics

__all__ = ["Finding", "examined"]

T = TypeVar("T", bound=msgspec.Struct)

#: Of one check of an API: a token and one request, with their retries.
_API_S: Final = 60.0
#: Topics that a problem names at most.
_SHOWN: Final = 5


@final
class Finding(msgspec.Struct, frozen=True):
    """What one check found; *advice* is what to do, empty where nothing is to be done."""

    check: str
    found: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is as it should be."""
        return not self.advice


async def examined(file: Path | None) -> AsyncIterator[Finding]:
    """Every finding about the settings in *file* and the environment, as it is made."""
    try:
        settings = load(file)
    except ConfigError as error:
        for problem in error.problems:
            yield _problem("settings", problem, "correct it; nothing else can be examined before")
        return
    async with AsyncExitStack() as stack:
        examination = _Examination(settings, stack)
        for finding in _settings(settings, file):
            yield finding
        async for finding in examination.kafka():
            yield finding
        async for finding in examination.apis():
            yield finding
        for finding in _ports(settings):
            yield finding


def _settings(settings: Settings, file: Path | None) -> Iterator[Finding]:
    problems = list(preflight.problems(settings))
    for problem in problems:
        yield _problem("settings", problem, f"change it in {file or 'PIPELINE_… variables'}")
    if not problems:
        names = ", ".join(settings.tenants)
        yield Finding("settings", f"good; profile {settings.profile}, tenants {names}")


class _Examination:
    """Looks at Kafka and the APIs; what is opened for that is closed by *stack*."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._connection: Connection | None = None
        self._topics: frozenset[str] = frozenset()
        self._identity = _identity(settings)

    # -- Kafka -------------------------------------------------------------------------------------

    async def kafka(self) -> AsyncIterator[Finding]:
        """The broker, the topics, and the identity that the cluster's keys were made with."""
        servers = self._settings.kafka.bootstrap_servers
        if not servers:
            return
        try:
            connection = Connection(self._settings.kafka, self._settings.runtime)
            plan = await self._plan(connection)
        except (BrokerError, ConfigError) as error:
            yield _problem("kafka", str(error), "start Kafka, or correct the settings under kafka")
            return
        self._connection, self._topics = connection, frozenset(plan.found)
        yield Finding("kafka", f"answers at {servers}")
        for finding in _planned(plan):
            yield finding
        yield await self._fingerprint()

    async def _plan(self, connection: Connection) -> Plan:
        settings, topics = self._settings, load_topics()
        stages = [unit.stage for unit in topology.units(settings, Identity(b""))]
        async with Admin(connection.common) as admin:
            return await admin.plan(
                wanted(topics, topics.profile(settings.profile), settings.application_id, stages)
            )

    async def _fingerprint(self) -> Finding:
        if self._identity is None or "meta" not in self._topics:
            return _problem("identity", "was not compared", "mend what is told above, then look again")
        table = self._table("meta", Fingerprint)
        try:
            known = await table.load(f"{self._settings.application_id}.identity")
        except BrokerError as error:
            return _problem("identity", str(error), "see whether Kafka is well, then look again")
        if known is None:
            return Finding("identity", "none is kept yet; the first run keeps this one")
        if known.sha256 != self._identity.fingerprint():
            return _problem(
                "identity",
                "identity_secret is not the one that this cluster's keys were made with",
                "give that one back; keys cannot be made with another",
            )
        return Finding("identity", "is the one that this cluster's keys were made with")

    def _table(self, topic: str, type_: type[T]) -> KafkaTable[T]:
        assert self._connection is not None
        table = KafkaTable(self._connection, self._codec(), topic, type_)
        self._stack.push_async_callback(table.close)
        return table

    def _codec(self) -> Codec:
        topics = load_topics()
        partitions = topics.partitions("sources.received", topics.profile(self._settings.profile))
        return Codec(topics, partitions, self._settings.application_id)

    # -- APIs --------------------------------------------------------------------------------------

    async def apis(self) -> AsyncIterator[Finding]:
        """Both APIs, for each account and location of each tenant."""
        sealer = Sealer((self._identity or Identity(b"")).derived("tokens"))
        clients = await self._stack.enter_async_context(
            clients_opened(self._settings, self._tokens(), sealer)
        )
        for name, tenant in self._settings.tenants.items():
            if name in clients.disabled:
                for problem in clients.disabled[name].splitlines():
                    yield _problem(f"tenant {name}", problem, "put the secret there; the tenant is left out")
                continue
            for index, account in enumerate(tenant.sakari):
                yield await self._sakari(clients, f"tenants.{name}.sakari.{index}", account)
            for index, location in enumerate(tenant.users):
                place = f"tenants.{name}.users.{index}"
                yield await self._users(clients, place, location, tenant.dialect)

    def _tokens(self) -> TokenStore:
        if "tokens" in self._topics and self._identity is not None:
            return self._table("tokens", Token)
        return _NoTokens()

    async def _sakari(self, clients: Clients, place: str, account: SakariAccount) -> Finding:
        check = f"{place.split('.')[1]}: sakari {account.account_id}"
        try:
            async with asyncio.timeout(_API_S):
                await clients.sakari[account.account_id].check()
        except (UpstreamError, TimeoutError) as error:
            secrets = _secrets(place, client_id=account.client_id, client_secret=account.client_secret)
            return _unusable(check, error, self._settings.sakari.base_url, secrets)
        return Finding(check, "a token is given, contacts can be read")

    async def _users(self, clients: Clients, place: str, location: UsersLocation, dialect: str) -> Finding:
        check = f"{place.split('.')[1]}: users {location.location_id}"
        try:
            async with asyncio.timeout(_API_S):
                missing = await clients.users[location.location_id].check(dialect)
        except (UpstreamError, TimeoutError) as error:
            secrets = _secrets(
                place,
                token=location.token,
                client_id=location.client_id,
                client_secret=location.client_secret,
                refresh_token=location.refresh_token,
            )
            return _unusable(check, error, self._settings.users.base_url, secrets)
        if missing:
            scopes = ", ".join(sorted(missing))
            return _problem(check, f"scopes are missing: {scopes}", f"grant them, renew the token of {place}")
        granted = "its scopes are not told" if location.token else "all scopes are granted"
        return Finding(check, f"tags can be read; {granted}")


class _NoTokens:
    """Where no token can be kept: a refresh token must not be used up then."""

    async def load(self, _: str) -> Token | None:
        raise BrokerError("it needs Kafka with the topic tokens, and the identity secret")

    async def save(self, _: str, __: Token) -> None:
        raise BrokerError("nothing is kept")


def _planned(plan: Plan) -> Iterator[Finding]:
    """What differs, by what is done about it."""
    if plan.is_clean:
        yield Finding("topics", f"all {len(plan.wanted)} are as topics.yaml says")
    for told, action, advice in (
        ("missing", "create", "`pipeline topics apply` makes them"),
        ("too few partitions", "grow", "`pipeline topics apply` adds them"),
        ("other configs", "alter", "`pipeline topics apply` sets them"),
        ("another replication", "by-hand", "move them with kafka-reassign-partitions"),
    ):
        names = list(dict.fromkeys(each.topic for each in plan.of(action)))
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            yield _problem("topics", f"{told}: {', '.join(names[:_SHOWN])}{more}", advice)
    for refusal in plan.refusals:
        yield _problem("topics", refusal, "`pipeline topics plan` shows it; use a new application_id")


def _unusable(check: str, error: Exception, url: str, secrets: str) -> Finding:
    told = str(error) or f"no answer within {_API_S:.0f} s"
    if "credentials are refused" in told or "status 401" in told or "status 403" in told:
        advice = f"correct {secrets}"
    elif isinstance(error.__cause__, BrokerError):
        advice = "mend what is told of Kafka and the identity, then look again"
    else:
        advice = f"see whether {url} is reached from here, and what it says"
    return _problem(check, told, advice)


def _secrets(place: str, **refs: SecretRef | None) -> str:
    """Where the secrets of *place* are kept, never what they are."""
    told = []
    for name, ref in refs.items():
        if ref is not None:
            kept = f"file {ref.file}" if ref.file else f"variable {ref.env}" if ref.env else "its own value"
            told.append(f"{place}.{name} ({kept})")
    return " or ".join(told)


def _ports(settings: Settings) -> Iterator[Finding]:
    for name, host, port in (
        ("receiver", settings.receiver.host, settings.receiver.port),
        ("admin", settings.admin.host, settings.admin.port),
    ):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                advice = f"stop what listens there (a pipeline that runs already?), or change {name}.port"
                yield _problem(f"{name} port", f"{host}:{port}: {error.strerror}", advice)
            else:
                yield Finding(f"{name} port", f"{host}:{port} is free" if port else "takes a free one")


def _identity(settings: Settings) -> Identity | None:
    try:
        return preflight.identity_of(settings) if settings.identity_secret else None
    except ConfigError:
        return None  # told among the settings' problems


def _problem(check: str, found: str, advice: str) -> Finding:
    return Finding(check, mask_problem(found), mask(advice))
