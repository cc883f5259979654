"""The report of an erasure: signed, verifiable by anybody, and without a number."""

import msgspec
import orjson
import pytest

from pipeline.errors import ConfigError
from pipeline.identity import Identity
from pipeline.instants import Time
from pipeline.runtime.erasure import Held
from pipeline.runtime.erasure_report import Report, is_genuine, public_key, signed

IDENTITY = Identity(b"a secret of these tests and of nobody else")
NOON = Time("2030-01-10T12:00:00.000Z")
REPORT = Report(
    id="5f0c2a91",
    tenant="acme",
    keys=("acme:m:00112233445566778899aabbccddeeff",),
    by="ada",
    asked_at=NOON,
    looked_at=NOON,
    complete=True,
    before=(Held(topic="contacts.enriched", kind="removed", records=1),),
    after=(Held(topic="sakari.events", kind="expires", records=2, until=NOON),),
)


def test_a_report_is_genuine_by_the_public_key_alone() -> None:
    """Whoever has the public key can tell, however the JSON is laid out."""
    document = signed(REPORT, IDENTITY)
    assert is_genuine(document, public_key(IDENTITY))
    assert is_genuine(orjson.dumps(orjson.loads(document)), public_key(IDENTITY))


@pytest.mark.parametrize("field", [*msgspec.structs.asdict(REPORT)])
def test_a_report_that_was_changed_is_not_genuine(field: str) -> None:
    """No field can be taken out unseen."""
    told = orjson.loads(signed(REPORT, IDENTITY))
    del told[field]
    assert not is_genuine(orjson.dumps(told), public_key(IDENTITY))


def test_a_report_of_somebody_else_is_not_genuine() -> None:
    """Another secret has another key."""
    other = Identity(b"the secret of somebody else entirely")
    assert not is_genuine(signed(REPORT, other), public_key(IDENTITY))


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"signature": 1}', b"\xff"])
def test_what_is_no_report_is_refused(document: bytes) -> None:
    """What has no signature is neither genuine nor false."""
    with pytest.raises(ConfigError, match="the report"):
        is_genuine(document, public_key(IDENTITY))


@pytest.mark.parametrize("key", ["", "no base64!", "AAAA"])
def test_what_is_no_key_is_refused(key: str) -> None:
    """A wrong key is told from a wrong report."""
    with pytest.raises(ConfigError, match="--key"):
        is_genuine(signed(REPORT, IDENTITY), key)
