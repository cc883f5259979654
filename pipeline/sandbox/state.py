"""
START HERE: everything both sandboxed vendors know, plain, synchronous and in memory.

A mutation is a method of `sakari_state.SakariAccount` or of `users_state.UsersLocation` (and
`users_state.UsersState` for what belongs to the company). It takes the instant it happens (``at``, aware) and
returns a `Change`: the resource as it is now and the webhooks the vendor would send for it, in order. Nothing
here reads a clock or delivers anything, so sample traffic decides what is delivered, when and how often::

    state = SandboxState(seed=7)
    account = state.sakari.add_account(name="acme")
    change = account.put_contact({"firstName": "Ada", "mobile": {…}}, at=now)
    change.value["id"], [hook.body for hook in change.hooks]

Resources are JSON dictionaries in the shape of the wire. They are replaced, never altered in place: what a
method returned stays as it was, and must not be altered by its reader.
"""

from dataclasses import dataclass, field

from pipeline.sandbox.ids import Ids
from pipeline.sandbox.sakari_state import SakariState
from pipeline.sandbox.state_types import Change, Hook, Json, Missing, Product
from pipeline.sandbox.users_state import UsersState

__all__ = ["Change", "Hook", "Json", "Missing", "Product", "SandboxState"]


@dataclass(slots=True)
class SandboxState:
    """Both vendors' data; the same *seed* and the same calls give the same ids."""

    seed: int = 0
    sakari: SakariState = field(init=False)
    users: UsersState = field(init=False)

    def __post_init__(self) -> None:
        self.sakari = SakariState(Ids(f"sakari {self.seed}"))
        self.users = UsersState(Ids(f"users {self.seed}"))
