"""What all tasks of a process share: the cluster that they work with, and what that gives each stage."""

from collections.abc import Callable
from typing import final

import msgspec

from pipeline.codec import Codec
from pipeline.runtime import names
from pipeline.runtime.batch import stores_of
from pipeline.runtime.connection import Connection
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.store import LocalStore, Origin
from pipeline.settings import RuntimeSettings
from pipeline.stage import Stage

__all__ = ["Cluster"]


@final
class Cluster(msgspec.Struct, frozen=True):
    """What all tasks of a process share."""

    id: str
    application_id: str
    partitions: int
    connection: Connection
    codec: Codec
    settings: RuntimeSettings
    metrics: Metrics
    mask: Callable[[str], str]

    def local_store(self, stage: Stage, partition: int) -> LocalStore:
        """The copy in this process of the state of *stage* on *partition*; it is not opened."""
        origin = Origin(self.id, self.application_id, stage.name, partition, stage.state_version)
        folder = self.settings.state_dir / self.application_id / stage.name / str(partition)
        return LocalStore(folder, origin, self.settings.store_memory_mb)

    def cached_values(self, stage: Stage) -> int:
        """How many values each store of a task of *stage* keeps decoded; twice as many for a moment."""
        stores = self.partitions * max(1, len(stores_of(stage)))
        return self.settings.cached_values // (2 * stores)

    def changelogs(self, stage: Stage) -> dict[str, str]:
        """Changelog topic -> store name, for each store of *stage*."""
        named = self.application_id, stage.name
        return {names.changelog(*named, store): store.name for store in stores_of(stage)}
