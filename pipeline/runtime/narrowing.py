"""How many records the next batch may hold; halved until the one that cannot be written stands alone."""

__all__ = ["Narrowing"]


class Narrowing:
    """
    The bound of a task's batches, at most *most* records.

    After a refusal the culprit is among as many records as the refused batch held. They are then taken
    in halves, alone and one commit after another, until it is passed or found.
    """

    def __init__(self, most: int) -> None:
        self.limit = most
        self._most = most
        self._suspects = 0

    @property
    def narrowed(self) -> bool:
        """Whether a culprit is being looked for."""
        return self._suspects > 0

    def refused(self, records: int) -> None:
        """A batch of *records* cannot be written."""
        self._suspects = max(1, records)
        self.limit = max(1, self._suspects // 2)

    def failed(self) -> None:
        """A batch failed again, nobody knows why: smaller ones may help."""
        self.limit = max(1, self.limit // 2)

    def committed(self, records: int) -> None:
        """A batch of *records* stands."""
        if not self._suspects:
            self.limit = min(self._most, self.limit * 2)
            return
        self._suspects = max(0, self._suspects - max(1, records))
        self.limit = max(1, self._suspects // 2) if self._suspects else self._most
