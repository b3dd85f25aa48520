"""What an algorithm is given: some tasks."""

from typing import Any, Protocol

from torch import Tensor


class Tasks(Protocol):
    """T tasks, each with the data of g (support) and of f (query): what the backbone takes, [T, ...], and labels, [T,
    ...]. A slice, or int64 indices, give some of them."""

    @property
    def origin(self) -> Any:
        """Where keys for layers with randomness come from; None for tasks that are no training tasks of a stream."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, tasks: Any) -> "Tasks": ...

    def support(self) -> tuple[Tensor, Tensor]: ...

    def query(self) -> tuple[Tensor, Tensor]: ...
