"""PyTorch itself as an engine, and the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from conformance.engines.base import Capabilities
from conformance.engines.namespace import NamespaceEngine
from conformance.program import Array

_WIDER = {torch.bfloat16: torch.float32, torch.complex32: torch.complex64}


class TorchEngine(NamespaceEngine):
    """torch on the CPU."""

    name = "torch"
    standalone = False

    def __init__(self) -> None:
        super().__init__(torch)

    def describe(self) -> Capabilities:
        """Both modes, both orders, every dtype that a Program can hold."""
        dtypes = ("float64", "float32", "bfloat16", "float16", "complex128", "complex64")
        return Capabilities((1, 2), ("reverse", "forward"), dtypes, ("cpu",), torch.__version__)

    def to_numpy(self, tensor: Any) -> Array:
        """A copy; sparse becomes dense, bfloat16 float32, complex32 complex64."""
        tensor = tensor.detach()
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        if tensor.dtype in _WIDER:
            tensor = tensor.to(_WIDER[tensor.dtype])
        # clone() makes torch's lazy zero tensors real; numpy() would crash on one
        return np.array(tensor.resolve_conj().resolve_neg().clone().numpy(), copy=True)
