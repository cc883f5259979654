"""Sakari's API as a whole: tokens, the accounts' operations, errors in the vendor's words."""

import base64
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from pipeline.sandbox import sakari_contacts, sakari_content, sakari_messages
from pipeline.sandbox.http_app import Answer, Call, Operation, Refusal
from pipeline.sandbox.ids import wire_time
from pipeline.sandbox.sakari_paging import AccountOperation, done
from pipeline.sandbox.sakari_state import SakariAccount, SakariState
from pipeline.sandbox.state import Json, Missing

__all__ = ["SakariApi"]

_CODES: Final = {
    "contact": ("CONT-002", "Invalid contact id"),
    "conversation": ("CONV-001", "Invalid conversation id"),
    "message": ("MSG-002", "Invalid message id"),
    "template": ("TMPL-002", "Invalid template id"),
    "campaign": ("CAMP-002", "Invalid campaign id"),
    "webhook": ("HOOK-003", "Unknown webhook"),
}
_MAX_SHARED: Final = 100


class SakariApi:
    """
    The door to `SakariState`.

    Args:
        token_ttl_s: seconds until an access token's ``exp``.
        requests_per_minute: of one account, then 429 without headers; None: no limit (the vendor names none).
    """

    def __init__(
        self, state: SakariState, *, token_ttl_s: int = 3600, requests_per_minute: int | None = None
    ) -> None:
        self._state = state
        self._token_ttl = timedelta(seconds=token_ttl_s)
        self._requests_per_minute = requests_per_minute
        self._key = _signing_key()
        self._tokens: dict[str, tuple[str, float]] = {}  #: token → account id, exp in epoch seconds
        self._minutes: dict[str, tuple[int, int]] = {}  #: account id → minute, requests in it
        self._shared: dict[str, bytes] = {}

    def operations(self) -> tuple[Operation, ...]:
        """All 26 operations of the vendor's document, and the fetch of a shared file's link."""
        modules = (sakari_contacts, sakari_messages, sakari_content)
        below = [self._scoped(each) for module in modules for each in module.OPERATIONS]
        return (
            Operation(id="auth.token", method="POST", path="/oauth2/token", handle=self.token, secured=False),
            Operation(id="tools.shareFile", method="POST", path="/v1/tools/sharefile", handle=self.share),
            Operation(
                id="shared.fetch", method="GET", path="/shared/{fileId}", handle=self.shared, secured=False
            ),
            *below,
        )

    def token(self, call: Call) -> Answer:
        """``auth.token``: a JWT (RS256) with ``exp``; the answer has no ``expires_in`` (FACTS §1)."""
        body = call.json()
        if body.get("grant_type") != "client_credentials":
            raise Refusal(400, "grant_type must be client_credentials", "AUTH-002")
        account = self._account_of_client(body)
        return Answer(200, {"access_token": self._issue(account, call), "token_type": "Bearer"})

    def share(self, call: Call) -> Answer:
        """``tools.shareFile``: keeps the upload and answers a link to it, for a day."""
        content = call.form.get("media", b"") if call.form else call.raw
        if not content:
            raise Refusal(400, "A file is needed", "FILE-001")
        if len(self._shared) >= _MAX_SHARED:
            del self._shared[next(iter(self._shared))]
        identity = self._state.ids.hexadecimal()
        self._shared[identity] = content if isinstance(content, bytes) else str(content).encode()
        expires = wire_time(call.now + timedelta(days=1))
        return Answer(200, done({"link": f"{call.base_url}/shared/{identity}", "expires": expires}))

    def shared(self, call: Call) -> Answer:
        """The bytes behind a shared file's link."""
        content = self._shared.get(call.params["fileId"])
        if content is None:
            raise Refusal(404, "Unknown file", "FILE-002")
        return Answer(200, content)

    # -- the door ----------------------------------------------------------------------------------

    def admit(self, call: Call, operation: Operation) -> None:
        """Refuse without a living token (401), on another's account (403), and over the limit (429)."""
        if not operation.secured:
            return
        account_id, expires = self._tokens.get(call.bearer, ("", 0.0))
        if expires <= call.now.timestamp():
            raise Refusal(401, "Invalid or expired token", "AUTH-001")
        if call.params.get("accountId", account_id) != account_id:
            raise Refusal(403, "No access to this account", "AUTH-003")
        self._count(account_id, call)

    def refused(self, refusal: Refusal) -> Json:
        """``{success: false, error: {code, message}}``."""
        return {"success": False, "error": {"code": refusal.code or "GEN-000", "message": refusal.message}}

    def headers(self, call: Call) -> Mapping[str, str]:  # noqa: ARG002 - the vendor sends none
        """Nothing."""
        return {}

    throttled_headers = headers

    def forget(self, call: Call, *, refresh_too: bool) -> None:  # noqa: ARG002 - there is no refresh token
        """Let the call's token be unknown from now on."""
        self._tokens.pop(call.bearer, None)

    # -- inside ------------------------------------------------------------------------------------

    def _scoped(self, each: AccountOperation) -> Operation:
        path = f"/v1/accounts/{{accountId}}{each.path}"
        return Operation(id=each.id, method=each.method, path=path, handle=self._in_account(each.handle))

    def _in_account(self, handle: Callable[[SakariAccount, Call], Answer]) -> Callable[[Call], Answer]:
        def handled(call: Call) -> Answer:
            try:
                return handle(self._state.account(call.params["accountId"]), call)
            except Missing as missing:
                code, message = _CODES.get(str(missing.args[0]), ("GEN-404", "Not found"))
                raise Refusal(404, message, code) from None

        return handled

    def _account_of_client(self, body: Json) -> SakariAccount:
        for account in self._state.accounts.values():
            given = (body.get("client_id"), body.get("client_secret"))
            if given == (account.client_id, account.client_secret):
                return account
        raise Refusal(401, "Invalid client credentials", "AUTH-004")

    def _issue(self, account: SakariAccount, call: Call) -> str:
        expires = (call.now + self._token_ttl).timestamp()
        claims = {"iss": "sakari-sandbox", "sub": account.client_id, "iat": int(call.now.timestamp())}
        claims |= {"exp": int(expires), "jti": account.ids.uuid(), "scope": "messages:send"}
        signed = f"{_part({'alg': 'RS256', 'typ': 'JWT'})}.{_part(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        token = f"{signed}.{_encoded(signature)}"
        now = call.now.timestamp()
        self._tokens = {key: value for key, value in self._tokens.items() if value[1] > now}
        self._tokens[token] = (account.id, expires)
        return token

    def _count(self, account_id: str, call: Call) -> None:
        minute = int(call.now.timestamp() // 60)
        known, requests = self._minutes.get(account_id, (minute, 0))
        requests = requests + 1 if known == minute else 1
        self._minutes[account_id] = (minute, requests)
        if self._requests_per_minute is not None and requests > self._requests_per_minute:
            raise Refusal(429, "Too many requests", "GEN-429")


@cache
def _signing_key() -> rsa.RSAPrivateKey:
    """One key a process: making one takes a good part of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _part(value: Mapping[str, Any]) -> str:
    return _encoded(orjson.dumps(value))


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
