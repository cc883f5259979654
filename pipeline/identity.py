"""
Who is who: native keys, contact keys, window keys' numbers and fact ids (DESIGN §3).

A native key names one contact of one system; the receiver can compute it from any payload. A
contact key names the person behind it by the HMAC of the mobile number, so keys carry no number.
"""

import hashlib
import hmac
import re
from functools import lru_cache
from typing import Literal
from urllib.parse import quote

import phonenumbers

__all__ = [
    "Identity",
    "e164",
    "fact_id",
    "fact_id_of",
    "is_short",
    "native_key",
    "quoted",
    "resource_name",
    "unreadable_key",
]

System = Literal["s", "u", "x"]


def native_key(tenant: str, system: System, contact_id: str | None, resource_id: str = "") -> str:
    """``tenant:s:<contact id>``, or ``tenant:s:-:<resource id>`` for what has no contact."""
    return f"{tenant}:{system}:{contact_id}" if contact_id else f"{tenant}:{system}:-:{resource_id}"


def unreadable_key(tenant: str, body: bytes) -> str:
    """The native key of a body that cannot be read: ``tenant:x:-:<sha256>``."""
    return f"{tenant}:x:-:{hashlib.sha256(body).hexdigest()}"


#: No number is written with more characters; longer text is not even remembered.
_MAX_NUMBER_TEXT = 100


def is_short(number: str, country: str | None) -> bool:
    """Whether *number*, dialled in *country*, can be one at all."""
    return len(number) + len(country or "") <= _MAX_NUMBER_TEXT


def e164(number: str, country: str | None) -> str | None:
    """*number* in E.164, read as dialled in *country* (ISO 3166 alpha-2); None unless it is valid."""
    return _e164(number, country) if is_short(number, country) else None


@lru_cache(maxsize=65_536)
def _e164(number: str, country: str | None) -> str | None:
    try:
        parsed = phonenumbers.parse(number, (country or "").upper() or None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def fact_id(system: str, account: str, resource: str, resource_id: str, kind: str) -> str:
    """The semantic id of a fact: 64 hex digits, the same from webhook, poll and backfill."""
    return fact_id_of(resource_name(system, account, resource, resource_id), kind)


def resource_name(system: str, account: str, resource: str, resource_id: str) -> str:
    """What the facts of one resource have in common; see `fact_id_of`."""
    return f"{_family(system, account, resource)}|{quoted(resource_id)}"


def fact_id_of(name: str, kind: str) -> str:
    """The `fact_id` of the fact *kind* of the resource whose `resource_name` is *name*."""
    return hashlib.sha256(f"{name}|{_kind(kind)}".encode()).hexdigest()


@lru_cache(maxsize=1_024)
def _family(system: str, account: str, resource: str) -> str:
    return "|".join(quoted(part) for part in (system, account, resource))


def quoted(part: str) -> str:
    """*part* percent-encoded, so that no separator is left in it: `urllib.parse.quote`, but quick for ids."""
    return part if part.isalnum() and part.isascii() else _RESERVED.sub(_escaped, part)


_RESERVED = re.compile(r"[^A-Za-z0-9_.~-]+")
_kind = lru_cache(maxsize=4_096)(quoted)


def _escaped(found: re.Match[str]) -> str:
    return quote(found[0], safe="")


class Identity:
    """Derives keyed hashes from the identity secret, which is never rotated."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def contact_key(self, tenant: str, mobile: str) -> str:
        """``tenant:m:<32 hex digits>`` for the E.164 number *mobile*."""
        return f"{tenant}:m:{self._digest(tenant, mobile)}"

    def number(self, tenant: str, number: str) -> str:
        """32 hex digits that stand for one of our own E.164 numbers in dimensions."""
        return self._digest(f"{tenant}\0number", number)

    def fingerprint(self) -> str:
        """SHA-256 that tells this secret from another without telling it."""
        return hmac.digest(self._secret, b"pipeline identity fingerprint", "sha256").hex()

    def derived(self, purpose: str) -> bytes:
        """32 bytes for another *purpose*, such as encrypting stored tokens."""
        return hmac.digest(self._secret, b"derive\0" + purpose.encode(), "sha256")

    def _digest(self, scope: str, text: str) -> str:
        message = scope.encode() + b"\0" + text.encode()
        return hmac.digest(self._secret, message, "sha256").hex()[:32]
