"""refgrad as an engine: plain NumPy, no torch; CuPy inside on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import refgrad
from conformance.engines.base import Capabilities
from conformance.engines.namespace import NamespaceEngine
from conformance.program import Array, Call, Program, Values, layout
from refgrad import libraries


class RefgradEngine(NamespaceEngine):
    """refgrad on the CPU, or on CUDA: the inputs are put there, and what calls make."""

    name = "refgrad"
    standalone = True
    recorded = True

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(refgrad)
        self.device = device
        if device != "cpu":
            self.name = f"refgrad on {device}"

    def describe(self) -> Capabilities:
        """Reverse mode, twice; forward mode where refgrad has it; CUDA where CuPy works."""
        found = super().describe()
        devices = ("cpu", "cuda") if refgrad.cuda.is_available() else ("cpu",)
        return Capabilities(
            found.orders, found.modes, ("float64", "float32"), devices, found.version
        )

    def to_tensor(self, array: Array, dtype: str) -> Any:
        """A tensor on this array's memory, or a copy where dtype or device are others."""
        tensor = super().to_tensor(array, dtype)
        return tensor if self.device == "cpu" else tensor.to(self.device)

    def to_numpy(self, tensor: Any) -> Array:
        """A copy on the host."""
        return np.array(tensor.numpy(force=True))

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        """Fresh tensors for the Program's inputs; those that share memory do so on the device."""
        if self.device == "cpu":
            return super().inputs(program, values, grad=grad)
        extents: dict[str, int] = {}
        for i in program.inputs:
            if i.storage is not None:
                extents[i.storage] = max(extents.get(i.storage, 0), i.offset + i.extent)
        fresh = layout(program.inputs, values)
        buffers: dict[str, Any] = {}
        tensors = {}
        for i in program.inputs:
            array = fresh[i.name]
            memory = np.zeros(i.extent if i.storage is None else extents[i.storage], array.dtype)
            if i.storage is None:
                buffer = libraries.to_device(memory)
            else:
                buffer = buffers.setdefault(i.storage, libraries.to_device(memory))
            steps = [s * array.itemsize for s in i.strides]
            placed = libraries.as_strided(buffer[i.offset :], array.shape, steps)
            np.copyto(placed, libraries.to_device(np.array(array, order="C")))
            tensor = refgrad.as_tensor(placed, dtype=self._resolve(f"torch.{i.dtype}"))
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
        """Run every call; what makes a tensor of nothing makes it on the device."""
        if self.device == "cpu":
            return super().execute(program, tensors, keeper, grad=grad)
        with refgrad.device(self.device):
            return super().execute(program, tensors, keeper, grad=grad)
