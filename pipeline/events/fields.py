"""
What fields mean: the annotations from which the schemas of the topics are made, and types used by many.

A field whose name and type do not say it all is ``Annotated[<type>, doc(…)]``; a text that is one of a
known set is annotated with `choice`, an instant with `at`. Nothing here is checked when a value is
decoded. Whatever holds text says with ``personal`` whether it tells of a person:

- ``direct``: who a person is, or what they wrote; shown masked unless asked for
- ``pseudonym``: stands for one person, for whoever can look it up
- ``none``: neither
"""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from pipeline.instants import Time

__all__ = [
    "AccountId",
    "Body",
    "ContactKey",
    "ConversationId",
    "Country",
    "Decimal",
    "Email",
    "Firstname",
    "Lastname",
    "LocationId",
    "Mobile",
    "NumberHash",
    "OccurredAt",
    "Personal",
    "SakariContactId",
    "Tenant",
    "UsersContactId",
    "at",
    "choice",
    "doc",
]

Personal: TypeAlias = Literal["none", "pseudonym", "direct"]


def doc(
    description: str, *examples: Any, unit: str = "", text_format: str = "", personal: Personal | None = None
) -> Meta:
    """
    Annotates a field: what it means, with *examples*; a number's *unit*, a text's *text_format*.

    *personal* says whether it tells of a person, and must be given for whatever holds text.
    """
    told = {"format": text_format, "x-unit": unit, "x-personal-data": personal}
    return Meta(
        description=description,
        examples=list(examples) or None,
        extra_json_schema={name: value for name, value in told.items() if value},
    )


def choice(description: str, *known: str) -> Meta:
    """Annotates a text that is one of *known* today; later ones may be added, which readers must expect."""
    values = [str(each) for each in known]
    extra = {"x-known-values": values, "x-personal-data": "none"}
    return Meta(description=description, examples=values[:1], extra_json_schema=extra)


def at(description: str) -> Meta:
    """Annotates a `pipeline.instants.Time`: RFC 3339, UTC, three decimals."""
    return doc(description, "2030-01-10T12:00:00.250Z", text_format="date-time", personal="none")


Tenant: TypeAlias = Annotated[str, doc("Whose data it is", "acme", personal="none")]
ContactKey: TypeAlias = Annotated[
    str,
    doc(
        "Stands for the person: tenant:m:HMAC of the mobile number, without one the native key",
        "acme:m:00112233445566778899aabbccddeeff",
        personal="pseudonym",
    ),
]
AccountId: TypeAlias = Annotated[str, doc("Sakari account", "6b2a54fc7d6a626848ce44b3", personal="none")]
LocationId: TypeAlias = Annotated[
    str, doc("Location of the Users API", "ct879RBiJHkPI19NH5nT", personal="none")
]
SakariContactId: TypeAlias = Annotated[
    str, doc("Sakari's id of the contact", "d1ad8558c56b41a196d9f80e", personal="pseudonym")
]
UsersContactId: TypeAlias = Annotated[
    str, doc("The Users API's id of the contact", "zNwy0jkcmimzRzZyhWgx", personal="pseudonym")
]
ConversationId: TypeAlias = Annotated[
    str,
    doc("Id of the conversation on its own system", "119a4be3c25314ab8ad1ad3a", personal="pseudonym"),
]
OccurredAt: TypeAlias = Annotated[Time, at("When it happened, as its system tells")]
NumberHash: TypeAlias = Annotated[
    str,
    doc(
        "Stands for our own number: HMAC of it, 32 hex digits",
        "b8201b13220b8384ad09bef5fc9425f9",
        personal="none",
    ),
]
Decimal: TypeAlias = Annotated[
    str,
    doc(
        "Decimal number: no exponent, no trailing zeros",
        "0.0158",
        unit="the account's currency",
        text_format="decimal",
        personal="none",
    ),
]
Firstname: TypeAlias = Annotated[str, doc("First name", "Ada", personal="direct")]
Lastname: TypeAlias = Annotated[str, doc("Last name", "Example", personal="direct")]
Email: TypeAlias = Annotated[str, doc("E-mail address", "ada@example.com", personal="direct")]
Mobile: TypeAlias = Annotated[str, doc("Phone number, E.164", "+12025550101", personal="direct")]
Country: TypeAlias = Annotated[
    str, doc("Country of the phone number, ISO 3166-1 alpha-2", "US", personal="direct")
]
Body: TypeAlias = Annotated[str, doc("The JSON as it came", '{"a":1}', personal="direct")]
