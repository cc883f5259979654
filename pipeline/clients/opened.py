"""The clients of every tenant, on one HTTP session."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import final

import aiohttp
import msgspec

from pipeline.clients.http import Http, open_session
from pipeline.clients.sakari import SakariClient, sakari_limiter
from pipeline.clients.tokens import OAuthTokens, SakariTokens, Sealer, StaticToken, Tokens, TokenStore
from pipeline.clients.users import UsersClient, users_limiter
from pipeline.errors import ConfigError
from pipeline.settings import BackfillSettings, SakariAccount, SecretRef, Settings, UsersLocation

__all__ = ["Clients", "opened"]


@final
class Clients(msgspec.Struct, frozen=True):
    """Clients by account and by location; *disabled* names the tenants without, and why."""

    sakari: Mapping[str, SakariClient]
    users: Mapping[str, UsersClient]
    disabled: Mapping[str, str]


@asynccontextmanager
async def opened(
    settings: Settings, store: TokenStore, sealer: Sealer, *, sparing: BackfillSettings | None = None
) -> AsyncIterator[Clients]:
    """
    The clients that *settings* speak of, until the end of the block.

    A tenant whose secrets cannot be read gets none; the others work on. With *sparing* they keep to its
    share of the limits, and give way to others.
    """
    async with open_session() as session:
        opener = _Opener(session, settings, store, sealer, sparing)
        sakari: dict[str, SakariClient] = {}
        users: dict[str, UsersClient] = {}
        disabled: dict[str, str] = {}
        for name, tenant in settings.tenants.items():
            try:
                _check_secrets(tenant.sakari, tenant.users)
            except ConfigError as error:
                disabled[name] = str(error)
                continue
            for account in tenant.sakari:
                sakari[account.account_id] = opener.sakari(account)
            for location in tenant.users:
                users[location.location_id] = opener.users(name, location)
        yield Clients(sakari, users, disabled)


def _check_secrets(accounts: tuple[SakariAccount, ...], locations: tuple[UsersLocation, ...]) -> None:
    problems: list[str] = []
    refs = [ref for account in accounts for ref in (account.client_id, account.client_secret)]
    for location in locations:
        given = (location.token, location.client_id, location.client_secret, location.refresh_token)
        refs += [ref for ref in given if ref is not None]
    for ref in refs:
        problems += _problem(ref)
    if problems:
        raise ConfigError(problems)


def _problem(ref: SecretRef) -> tuple[str, ...]:
    try:
        ref.reveal()
    except ConfigError as error:
        return error.problems
    return ()


class _Opener:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: Settings,
        store: TokenStore,
        sealer: Sealer,
        sparing: BackfillSettings | None,
    ) -> None:
        self._settings = settings
        self._sparing = sparing
        self._store = store
        self._sealer = sealer
        self._sakari_http = Http(session, timeout_s=settings.sakari.timeout_s)
        self._users_http = Http(session, timeout_s=settings.users.timeout_s)

    def sakari(self, account: SakariAccount) -> SakariClient:
        settings, http = self._settings, self._sakari_http
        tokens = SakariTokens(http, settings.sakari, account)
        return SakariClient(
            http,
            tokens,
            settings.sakari,
            account.account_id,
            limiter=sakari_limiter(settings.sakari, self._sparing),
            max_pages=settings.poll.max_pages,
        )

    def users(self, tenant: str, location: UsersLocation) -> UsersClient:
        settings = self._settings
        return UsersClient(
            self._users_http,
            self._tokens(tenant, location),
            settings.users,
            location.location_id,
            company_id=location.company_id,
            limiter=users_limiter(settings.users, self._sparing),
            max_pages=settings.poll.max_pages,
        )

    def _tokens(self, tenant: str, location: UsersLocation) -> Tokens:
        if location.token is not None:
            return StaticToken(location.token.reveal)
        return OAuthTokens(
            self._users_http,
            self._settings.users,
            location,
            tenant=tenant,
            store=self._store,
            sealer=self._sealer,
        )
