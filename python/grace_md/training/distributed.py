"""Processes of one run (torchrun): sums, decisions of the first process, and gradients.

Gradients are summed, not averaged: the loss of each process is already divided by the sums of weights of all
(`grace_md.training.loss`). They travel as one vector after the backward pass: GRACE models have few parameters, and a
wrapper around the model would not see a backward pass inside the forward one, which forces need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Processes"]

T = TypeVar("T")


class Processes:
    """The processes of a run; one without torchrun. A context manager that leaves the group at the end.

    Attributes
    ----------
    rank, size : int
    local_rank : int, which GPU of the machine
    """

    def __init__(self, device: str = "cpu") -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self._started = False
        if device == "cuda":
            torch.cuda.set_device(self.local_rank)  # where NCCL puts what it sends
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
            self._started = True

    @property
    def first(self) -> bool:
        """Whether this is the process that decides and writes."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes and return it."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
        return tensor

    def decide(self, make: Callable[[], T]) -> T:
        """Return what `make` gives on the first process, on every process; errors there are raised everywhere.

        Only the first process calls `make`: no process can act on a decision that another does not share.
        """
        if self.size == 1:
            return make()
        message: list[Any] = [None, None]
        if self.first:
            try:
                message[0] = make()
            except Exception as error:
                message[1] = error
        dist.broadcast_object_list(message, src=0)
        if message[1] is not None:
            raise message[1]
        result: T = message[0]
        return result

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds on any process."""
        if self.size == 1:
            return flag
        total = torch.tensor([1.0 if flag else 0.0])
        if dist.get_backend() == "nccl":
            total = total.cuda(self.local_rank)
        return bool(self.sum_(total).item() > 0)

    @torch.no_grad()
    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the tensors of the first."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients of all processes; a parameter without one counts as zero."""
        if self.size == 1:
            return
        every = list(parameters)
        for dtype in sorted({p.dtype for p in every}, key=str):
            chosen = [p for p in every if p.dtype == dtype]
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in chosen])
            self.sum_(flat)
            begin = 0
            for p in chosen:
                p.grad = flat[begin : begin + p.numel()].view_as(p).clone()
                begin += p.numel()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started and kind is None:
            dist.destroy_process_group()
