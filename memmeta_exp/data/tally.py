"""Things counted, the first of them by name."""

from collections.abc import Iterable
from dataclasses import dataclass, field

NAMED = 20


@dataclass
class Tally:
    """count: how many; first: the first NAMED of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        named = isinstance(self.first, list) and all(isinstance(name, str) for name in self.first)
        if not isinstance(self.count, int) or not named:
            raise TypeError("no tally")

    @staticmethod
    def joined(tallies: "Iterable[Tally]") -> "Tally":
        """Of all."""
        found = list(tallies)
        return Tally(sum(t.count for t in found), [name for t in found for name in t.first][:NAMED])

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(name)

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more} more" if more else "")
