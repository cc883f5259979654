"""Identity: keys that carry no number, and ids that are the same wherever a fact comes from."""

import hashlib
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.identity import Identity, _e164, e164, fact_id, native_key, quoted, unreadable_key

SECRET = b"an identity secret of the tests"
IDENTITY = Identity(SECRET)
MOBILE = "+12025550101"
PARTS = st.lists(st.sampled_from(["", "|", "a", "a|", "|a", "%7C"]), min_size=5, max_size=5)


class TestContactKeys:
    """The person behind a number."""

    def test_a_contact_key_is_an_hmac_over_tenant_and_number(self) -> None:
        """DESIGN section 3: HMAC-SHA256(secret, tenant ‖ 0x00 ‖ E.164), 32 hex digits."""
        made = hmac.new(SECRET, b"acme\x00+12025550101", hashlib.sha256).hexdigest()
        assert IDENTITY.contact_key("acme", MOBILE) == f"acme:m:{made[:32]}"

    def test_a_contact_key_never_changes(self) -> None:
        """Its literal value: every topic's keys depend on it."""
        assert IDENTITY.contact_key("acme", MOBILE) == "acme:m:0ab5d940e2f566ff3640f7df85822409"

    def test_tenants_and_secrets_have_keys_of_their_own(self) -> None:
        """Nobody's keys can be joined with another's."""
        keys = {
            IDENTITY.contact_key("acme", MOBILE).rpartition(":")[2],
            IDENTITY.contact_key("bolt", MOBILE).rpartition(":")[2],
            Identity(b"another secret").contact_key("acme", MOBILE).rpartition(":")[2],
            IDENTITY.number("acme", MOBILE),
        }
        assert len(keys) == 4

    @given(st.from_regex(r"\+[1-9][0-9]{9,13}", fullmatch=True))
    def test_no_key_carries_the_number(self, number: str) -> None:
        """Neither in whole nor without its sign."""
        key = IDENTITY.contact_key("acme", number)
        assert number[1:] not in key
        assert len(key) == len("acme:m:") + 32

    def test_a_fingerprint_tells_secrets_apart_without_telling_them(self) -> None:
        """The same for the same secret; no derived key is another's."""
        assert Identity(SECRET).fingerprint() == IDENTITY.fingerprint()
        assert Identity(SECRET + b"x").fingerprint() != IDENTITY.fingerprint()
        assert IDENTITY.derived("tokens") != IDENTITY.derived("cursors")
        assert SECRET.decode() not in f"{IDENTITY!r} {IDENTITY.fingerprint()}"


class TestNativeKeys:
    """A contact of one system."""

    @pytest.mark.parametrize(
        ("key", "wanted"),
        [
            (native_key("acme", "s", "c1"), "acme:s:c1"),
            (native_key("acme", "u", "u1", "x"), "acme:u:u1"),
            (native_key("acme", "s", None, "m1"), "acme:s:-:m1"),
            (native_key("acme", "s", "", "m1"), "acme:s:-:m1"),
            (native_key("acme", "x", None, "e1"), "acme:x:-:e1"),
        ],
    )
    def test_a_native_key_is_that_of_the_contact_else_of_the_resource(self, key: str, wanted: str) -> None:
        """DESIGN section 3."""
        assert key == wanted

    def test_what_cannot_be_read_is_keyed_by_its_bytes(self) -> None:
        """The SHA-256 of the body."""
        assert unreadable_key("-", b"abc") == f"-:x:-:{hashlib.sha256(b'abc').hexdigest()}"


class TestFactIds:
    """Semantic ids."""

    @pytest.mark.parametrize(
        ("kind", "wanted"),
        [
            ("sent", "ad23747bf7610e0cc5141af0d69738f1f426192daa32a37f053d42db95fa972b"),
            ("status:delivered", "e3b6eedcfab8de48c343cee1db32d92464b5ac693f26cded26fc4559f62578c5"),
        ],
    )
    def test_a_fact_id_never_changes(self, kind: str, wanted: str) -> None:
        """Its literal value: seen facts are recognised by it over releases."""
        assert fact_id("sakari", "account-1", "message", "m1", kind) == wanted

    @given(PARTS, PARTS)
    def test_different_facts_have_different_ids(self, one: list[str], other: list[str]) -> None:
        """Separators within a part cannot make two facts one."""
        assert (fact_id(*one) == fact_id(*other)) == (one == other)

    @given(st.text())
    def test_parts_are_percent_encoded(self, part: str) -> None:
        """As `urllib.parse.quote` does it, only quicker where nothing is to be done."""
        assert quoted(part) == quote(part, safe="")


class TestNumbers:
    """E.164."""

    @pytest.mark.parametrize(
        ("number", "country", "wanted"),
        [
            ("202-555-0101", "US", "+12025550101"),
            ("(202) 555 0101", "us", "+12025550101"),
            ("+49 171 3920099", "US", "+491713920099"),
            ("0171 3920099", "DE", "+491713920099"),
            ("+1 202 555 0101", None, "+12025550101"),
            ("202-555-0101", None, None),
            ("202-555-0101", "ZZ", None),
            ("12", "US", None),
            ("", "US", None),
            ("no number", "US", None),
            ("+1 202 555 0101" + " " * 100, "US", None),
        ],
    )
    def test_only_valid_numbers_count(self, number: str, country: str | None, wanted: str | None) -> None:
        """Read as dialled in the country, where it has one."""
        assert e164(number, country) == wanted

    @given(st.text(max_size=300), st.none() | st.text(max_size=5))
    def test_any_text_is_a_number_or_none(self, number: str, country: str | None) -> None:
        """Nothing is raised, and what comes is E.164."""
        found = e164(number, country)
        assert found is None or (found[0] == "+" and found[1:].isascii() and found[1:].isdecimal())

    def test_long_text_is_not_remembered(self) -> None:
        """Numbers come from outside: memory must not grow with them."""
        before = _e164.cache_info().currsize
        assert e164("1" * 101, "US") is None
        assert _e164.cache_info().currsize == before
