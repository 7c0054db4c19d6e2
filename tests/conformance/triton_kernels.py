"""Kernels in Triton with rules by hand, right and wrong: what check_gradients is for on a GPU."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _softmax(x, y, columns, block: tl.constexpr):
    at = tl.program_id(0) * columns + tl.arange(0, block)
    within = tl.arange(0, block) < columns
    row = tl.load(x + at, within, other=-float("inf"))
    e = tl.exp(row - tl.max(row, 0))
    tl.store(y + at, e / tl.sum(e, 0), within)


@triton.jit
def _softmax_back(y, g, d, columns, block: tl.constexpr):
    at = tl.program_id(0) * columns + tl.arange(0, block)
    within = tl.arange(0, block) < columns
    row, cotangent = tl.load(y + at, within, other=0.0), tl.load(g + at, within, other=0.0)
    tl.store(d + at, row * (cotangent - tl.sum(row * cotangent, 0)), within)


@triton.jit
def _columns(g, total, rows, columns, block: tl.constexpr):
    """The sum over rows, each block of rows by atomic additions."""
    column = tl.program_id(1)
    row = tl.program_id(0) * block + tl.arange(0, block)
    part = tl.load(g + row * columns + column, row < rows, other=0.0)
    tl.atomic_add(total + column, tl.sum(part, 0))


class Softmax(torch.autograd.Function):
    """Along the last axis of a matrix."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        if x.numel():
            _softmax[(x.shape[0],)](x, y, x.shape[1], triton.next_power_of_2(x.shape[1]))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (y,), g = ctx.saved_tensors, g.contiguous()
        d = torch.empty_like(y)
        if y.numel():
            _softmax_back[(y.shape[0],)](y, g, d, y.shape[1], triton.next_power_of_2(y.shape[1]))
        return d


class AsItLies(Softmax):
    """Wrong: reads a cotangent's memory as if it were contiguous."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        d = torch.empty_like(y)
        _softmax_back[(y.shape[0],)](y, g, d, y.shape[1], triton.next_power_of_2(y.shape[1]))
        return d


class WithoutTail(Softmax):
    """Wrong: what is beyond the last whole block of eight columns keeps what memory held."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (y,), g = ctx.saved_tensors, g.contiguous()
        d = torch.zeros_like(y)
        whole = max(y.shape[1] // 8 * 8, 1)
        head = y[:, :whole].contiguous(), g[:, :whole].contiguous()
        part = torch.empty_like(head[0])
        _softmax_back[(y.shape[0],)](*head, part, whole, triton.next_power_of_2(whole))
        d[:, :whole] = part
        return d


class Bias(torch.autograd.Function):
    """x + b, with the sum over rows in any order."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return x + b

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        g = g.contiguous()
        rows, columns = g.shape
        total = torch.zeros(columns, dtype=g.dtype, device=g.device)
        if g.numel():
            _columns[(triton.cdiv(rows, 4), columns)](g, total, rows, columns, 4)
        return g, total
