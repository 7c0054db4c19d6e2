"""The tensors of a Program under construction, and how a draw says that it does not fit."""

from __future__ import annotations

import math

import torch

from conformance.program import Ref
from conformance.sources.values import REAL, Domain

Shape = tuple[int, ...]


class Unfit(Exception):
    """What was drawn does not fit (a size, a domain, a result that overflows): draw again."""


class Undefined(Unfit):
    """torch has no such call, most often of that dtype: it is of little use to draw again."""


class Node:
    """A tensor of the draft: an input, a result, or an element of one."""

    __slots__ = ("data", "high", "low", "needs_grad", "ref", "shape")

    def __init__(self, ref: Ref, data: torch.Tensor, needs_grad: bool) -> None:
        self.ref = ref
        self.data = data
        self.needs_grad = needs_grad
        self.shape: Shape = tuple(data.shape)
        self.measure()

    def measure(self) -> None:
        """The range of its values; of complex ones that of their parts."""
        data = torch.view_as_real(self.data.resolve_conj()) if self.data.is_complex() else self.data
        self.low, self.high = math.inf, -math.inf
        if data.numel() and data.dtype != torch.bool:
            low, high = torch.aminmax(data)
            self.low, self.high = float(low), float(high)

    @property
    def memory(self) -> int:
        """What two tensors have in common that share memory."""
        return self.data.untyped_storage().data_ptr()

    @property
    def overlaps(self) -> bool:
        """Whether elements may share memory with each other: expanded, or windows unfolded."""
        reach = 0
        for step, size in sorted(zip(self.data.stride(), self.shape, strict=True)):
            if size > 1:
                if step <= reach:
                    return True
                reach += (size - 1) * step
        return False

    @property
    def rank(self) -> int:
        return len(self.shape)

    def fits(self, domain: Domain) -> bool:
        """Whether all its values lie in the domain."""
        if domain is REAL or not self.data.numel():
            return True
        if self.data.is_complex():
            return float(self.data.abs().min()) >= domain.gap and domain.high > 1.0
        nearest = 0.0
        if domain.gap:
            nearest = float(self.data.abs().min())
        return domain.holds(self.low, self.high, nearest)
