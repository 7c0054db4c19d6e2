"""PyTorch itself as an engine, and the reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch._library.custom_ops import CustomOpDef
from torch._ops import OpOverload, OpOverloadPacket

from conformance.engines.base import Capabilities, Vjp
from conformance.engines.namespace import NamespaceEngine
from conformance.errors import ConformanceError, DeviceLost, EngineError, Unsupported
from conformance.program import Array, Call, Program, Values, layout

_MISSING = re.compile(  # a derivative, or a kernel of a device
    r"derivative for aten::\w+ is not implemented|is not supported on CUDA|to be on cpu, but"
    r"|Batching rule not implemented for aten::\w+\. We could not generate a fallback"
    r"|This backward function was compiled with non-empty donated buffers"  # by torch.compile
    r"|Nested forward mode AD is not supported"
    r"|flat_bdims must not be None"  # of a jvp that is not there, under vmap
    r"|in torch\._foreach_norm: Trying to set a forward gradient that has a different size"
)
_BACKWARD_ALONE = re.compile(r"(in|not )compatible(\*\*)? with \.grad\(\)")
_WIDER = {torch.bfloat16: torch.float32, torch.complex32: torch.complex64}


class TorchEngine(NamespaceEngine):
    """torch on the CPU, or on another device: the inputs are put there, and what calls make."""

    name = "torch"
    standalone = False
    recorded = True

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(torch)
        self.accumulates = False  # whether gradients are read where backward() leaves them
        self.accumulated = False  # whether any were
        self.device = device
        if device != "cpu":
            self.name = f"torch on {device}"  # torch on the CPU is another engine

    def describe(self) -> Capabilities:
        """Both modes, both orders, every dtype that a Program can hold."""
        dtypes = ("float64", "float32", "bfloat16", "float16", "complex128", "complex64")
        own = torch.accelerator.current_accelerator()
        devices = ("cpu",) if own is None else ("cpu", own.type)
        return Capabilities((1, 2), ("reverse", "forward"), dtypes, devices, torch.__version__)

    def to_tensor(self, array: Array, dtype: str) -> Any:
        """A tensor on this array's memory, or a copy where dtype or device are others."""
        tensor = super().to_tensor(array, dtype)
        return tensor if self.device == "cpu" else _placed(tensor, self.device)

    def to_numpy(self, tensor: Any) -> Array:
        """A copy; sparse becomes dense, bfloat16 float32, complex32 complex64."""
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        if tensor.dtype in _WIDER:
            tensor = tensor.to(_WIDER[tensor.dtype])
        if self.memoryless(tensor):  # there is no memory to read
            tensor = tensor.clone()
        return np.array(tensor.cpu().numpy(force=True))

    def memoryless(self, tensor: Any) -> bool:
        """Whether it is torch's lazy zeros."""
        return bool(tensor._is_zerotensor())

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        """Fresh tensors for the Program's inputs; those that share memory do so on the device."""
        if self.device == "cpu":
            return super().inputs(program, values, grad=grad)
        extents: dict[str, int] = {}
        for i in program.inputs:
            if i.storage is not None:
                extents[i.storage] = max(extents.get(i.storage, 0), i.offset + i.extent)
        fresh = layout(program.inputs, values)
        buffers: dict[str, torch.Tensor] = {}
        tensors = {}
        for i in program.inputs:
            tensor = super().to_tensor(fresh[i.name], i.dtype)
            if i.storage is None:
                tensor = _placed(tensor, self.device)
            else:
                if i.storage not in buffers:
                    size = (extents[i.storage],)
                    buffers[i.storage] = tensor.new_zeros(size, device=self.device)
                tensor = _placed(tensor, self.device, buffers[i.storage], i.offset)
            tensors[i.name] = tensor.requires_grad_() if grad and i.requires_grad else tensor
        return tensors

    def execute(
        self,
        program: Program,
        tensors: Mapping[str, Any],
        keeper: Callable[[Call, Any], None] | None = None,
        *,
        grad: bool = True,
    ) -> list[Any]:
        """Run every call; what makes a tensor of nothing makes it on the device.

        A function of the user's makes it where it says.
        """
        if self.device == "cpu" or program.opaque:
            return super().execute(program, tensors, keeper, grad=grad)
        with torch.device(self.device):
            return super().execute(program, tensors, keeper, grad=grad)

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        """As of any engine; by backward() where that alone gives all gradients.

        As of a checkpoint that is given none of its module's parameters: it leads to no leaf.
        """
        found = None
        try:
            found = super().vjp(program, values, cotangents, keep=keep)
            if not program.opaque or any(g is not None for g in found.gradients.values()):
                return found
        except Unsupported as error:
            if not _BACKWARD_ALONE.search(str(error)):
                raise
        self.accumulates = True
        try:
            left = super().vjp(program, values, cotangents, keep=keep)
        finally:
            self.accumulates = False
        if found is not None and all(g is None for g in left.gradients.values()):
            return found
        self.accumulated = True
        return left

    def pulled_back(
        self, outputs: list[Any], leaves: list[Any], seeds: list[Any], **options: Any
    ) -> Sequence[Any]:
        """autograd.grad; Unsupported where a pass within the pass leaves gradients in `.grad`."""
        if self.accumulates:
            for leaf in leaves:
                leaf.retain_grad()
            torch.autograd.backward(outputs, seeds, **options)
            return [leaf.grad for leaf in leaves]
        before = [_written(leaf.grad) for leaf in leaves if leaf.is_leaf]
        found = super().pulled_back(outputs, leaves, seeds, **options)
        unbegun = self.accumulated and all(g is None for g in found)
        if unbegun or before != [_written(leaf.grad) for leaf in leaves if leaf.is_leaf]:
            text = "a backward pass within leaves gradients in .grad"
            raise Unsupported(f"{text}: it is not compatible with .grad()")
        return found

    def curvature(
        self,
        program: Program,
        values: Values,
        tangents: Mapping[str, Array],
        others: Mapping[str, Array],
    ) -> tuple[Array | None, ...]:
        """Second order by forward over forward.

        Nested, torch.func.jvp gives zeros for an autograd.Function, whatever its jvp is; for a
        torch.library.custom_op it does so in any case.
        """
        for call in program.calls:
            if isinstance(call.own, (CustomOpDef, OpOverload, OpOverloadPacket)):
                raise Unsupported(
                    f"torch.func has no forward mode of {call.target}: it gives zeros"
                )
            custom = function_of(call)
            if custom is not None and custom.jvp is not torch.autograd.Function.jvp:
                raise Unsupported(
                    f"torch nests no forward mode of {custom.__name__}: it gives zeros"
                )
        return super().curvature(program, values, tangents, others)

    def failure(self, error: Exception) -> ConformanceError:
        """As of any engine; what torch does not have, or not on a device, is unsupported.

        What follows an error of the device fails with it, whatever it asks for: DeviceLost.
        """
        found = super().failure(error)
        if not isinstance(found, EngineError):
            return found
        made: ConformanceError = found
        if _MISSING.search(str(found)) or _BACKWARD_ALONE.search(str(found)):
            made = Unsupported(str(found))
        elif isinstance(found.__cause__, torch.AcceleratorError):
            made = DeviceLost(str(found), call=found.call)
        if made is not found:
            made.__cause__ = found
        return made


@contextmanager
def unrounded() -> Iterator[None]:
    """What runs inside multiplies float32 in float32: by default a GPU's convolutions take TF32."""
    try:
        before = torch.get_float32_matmul_precision(), torch._C._get_cudnn_allow_tf32()
    except RuntimeError:  # set by torch.backends' newer names: these two refuse to tell
        yield
        return
    torch.set_float32_matmul_precision("highest")
    torch._C._set_cudnn_allow_tf32(False)  # torch.backends' may be frozen, as by torch.testing
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch._C._set_cudnn_allow_tf32(before[1])


def settle(device: str) -> None:
    """Wait for what a device still does: raises DeviceLost where that has failed for good.

    Errors of its kernels come late: without, the next sample is blamed, or one that only draws.
    """
    if device == "cpu" or not torch.accelerator.is_available():
        return
    try:
        torch.accelerator.synchronize()
    except torch.AcceleratorError as error:
        raise DeviceLost(str(error)) from error


def function_of(call: Call) -> type[torch.autograd.Function] | None:
    """The autograd.Function whose `apply` this opaque call is."""
    owner = getattr(call.own, "__self__", None)
    custom = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    return owner if custom else None


def _written(gradient: torch.Tensor | None) -> tuple[int, int] | None:
    """What changes where something is added to a gradient."""
    return None if gradient is None else (id(gradient), gradient._version)


def _placed(
    tensor: torch.Tensor, device: str, buffer: torch.Tensor | None = None, offset: int = 0
) -> torch.Tensor:
    """A copy on a device with the same strides; in `buffer` from `offset` on, if one is given."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    extent = 1 + sum((n - 1) * s for n, s in pairs) if tensor.numel() else 0
    if buffer is None:
        buffer = tensor.new_empty((extent,), device=device)
    buffer[offset : offset + extent].copy_(tensor.as_strided((extent,), (1,)))
    view = buffer.as_strided(tensor.shape, tensor.stride(), offset)
    return view.data  # which counts its own versions, as an input does
