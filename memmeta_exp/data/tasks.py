"""The interface of a batch of tasks."""

from typing import Any, Protocol

from torch import Tensor


class Tasks(Protocol):
    """T tasks, each with data of g (support) and of f (query). Both halves are the backbone's input [T, ...] and labels
    [T, ...]. Indexing with a slice or int64 indices selects tasks."""

    @property
    def origin(self) -> Any:
        """The `Origin` from which random layers take their keys; None unless these are training tasks of a stream."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, tasks: Any) -> "Tasks": ...

    def support(self) -> tuple[Tensor, Tensor]: ...

    def query(self) -> tuple[Tensor, Tensor]: ...
