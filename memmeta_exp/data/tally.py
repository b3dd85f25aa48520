"""A count of things with the names of the first few."""

from collections.abc import Iterable
from dataclasses import dataclass, field

NAMED = 20


@dataclass
class Tally:
    """count: the number of things. first: the names of the first NAMED."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        named = isinstance(self.first, list) and all(isinstance(name, str) for name in self.first)
        if not isinstance(self.count, int) or not named:
            raise TypeError("no tally")

    @staticmethod
    def joined(tallies: "Iterable[Tally]") -> "Tally":
        """The sum of `tallies`."""
        found = list(tallies)
        return Tally(sum(t.count for t in found), [name for t in found for name in t.first][:NAMED])

    def add(self, name: str) -> None:
        """Counts one more, called `name`."""
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(name)

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more} more" if more else "")
