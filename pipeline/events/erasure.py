"""Who was erased: told on the internal topic ``redactions``, without a number or a name."""

from typing import Annotated

import msgspec

from pipeline.events.fields import Tenant, at, doc
from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = ["Redaction"]


@registered("redaction.v1")
class Redaction(msgspec.Struct, frozen=True, kw_only=True):
    """A person who is left out from now on; table ``redactions`` under a contact key or a native key."""

    tenant: Tenant
    erased_at: Annotated[Time, at("When the erasure was asked for")]
    report: Annotated[str, doc("The erasure's report and job", "5f0c2a91", personal="none")]
