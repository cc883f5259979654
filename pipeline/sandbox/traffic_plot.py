"""What the actions of the sample traffic share: chance, a clock, and what is still to come."""

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import TypeAlias

from pipeline.sandbox.state import Hook
from pipeline.sandbox.traffic_recorder import Recorder
from pipeline.sandbox.world import Person, TenantWorld, World

__all__ = ["Action", "Actor", "Planned", "Plot", "planned"]


@dataclass(frozen=True, slots=True)
class Planned:
    """A webhook to be sent; again ``again_s`` after it was sent first, where that is given."""

    hook: Hook
    delay_s: float = 0.0
    ordered: bool = False  #: nothing may overtake it
    again_s: float | None = None


#: what is due, called with the traffic's clock in ms
Action: TypeAlias = Callable[[int], Iterable[Planned]]


@dataclass(frozen=True, slots=True)
class Actor:
    """A person of a tenant."""

    tenant: TenantWorld
    person: Person


@dataclass(slots=True)
class Plot:
    """Where the story stands; ``now_ms`` follows from how many webhooks were planned."""

    world: World
    recorder: Recorder
    rng: random.Random
    now_ms: int = 0
    _due: list[tuple[int, int, Action]] = field(default_factory=list)
    _order: "count[int]" = field(default_factory=count)

    def later(self, actor: Actor, delay_ms: int, action: Action) -> None:
        """Do *action* in *delay_ms*; until then something of the actor is on its way."""
        due_ms = self.now_ms + delay_ms
        actor.person.busy_until_ms = max(actor.person.busy_until_ms, due_ms)
        heapq.heappush(self._due, (due_ms, next(self._order), action))

    def pop_due(self) -> Action | None:
        """The next action whose time has come."""
        if self._due and self._due[0][0] <= self.now_ms:
            return heapq.heappop(self._due)[2]
        return None

    def at(self, actor: Actor) -> datetime:
        """A fresh instant of the actor's own clock."""
        return actor.person.next_at(self.now_ms, self.world.start_ms)

    def users_at(self, actor: Actor) -> datetime:
        """A fresh instant of the actor at the Users API."""
        return actor.person.next_users_at(self.now_ms)

    def between_ms(self, low_s: float, high_s: float) -> int:
        """A time span at random."""
        return round(self.rng.uniform(low_s, high_s) * 1_000)

    def chance(self, share: float) -> bool:
        """True for *share* of all calls."""
        return self.rng.random() < share

    def anybody(self, suits: Callable[[Person], bool]) -> Actor | None:
        """A person of any tenant who *suits*; None after a few vain tries."""
        tenants = list(self.world.tenants.values())
        for _ in range(8):
            tenant = self.rng.choice(tenants)
            person = self.rng.choice(tenant.people)
            if suits(person):
                return Actor(tenant, person)
        return None


def planned(hooks: Iterable[Hook], *, ordered: bool = False) -> list[Planned]:
    """*hooks* as they come, without anything inherent going wrong."""
    return [Planned(hook, ordered=ordered) for hook in hooks]
