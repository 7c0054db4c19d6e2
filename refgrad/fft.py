"""torch.fft: discrete Fourier transforms."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from refgrad.factory import Options, finish, pick_dtype
from refgrad.ops.fourier import fft as fft
from refgrad.ops.fourier import fft2 as fft2
from refgrad.ops.fourier import fftn as fftn
from refgrad.ops.fourier import fftshift as fftshift
from refgrad.ops.fourier import hfft as hfft
from refgrad.ops.fourier import hfft2 as hfft2
from refgrad.ops.fourier import hfftn as hfftn
from refgrad.ops.fourier import ifft as ifft
from refgrad.ops.fourier import ifft2 as ifft2
from refgrad.ops.fourier import ifftn as ifftn
from refgrad.ops.fourier import ifftshift as ifftshift
from refgrad.ops.fourier import ihfft as ihfft
from refgrad.ops.fourier import ihfft2 as ihfft2
from refgrad.ops.fourier import ihfftn as ihfftn
from refgrad.ops.fourier import irfft as irfft
from refgrad.ops.fourier import irfft2 as irfft2
from refgrad.ops.fourier import irfftn as irfftn
from refgrad.ops.fourier import rfft as rfft
from refgrad.ops.fourier import rfft2 as rfft2
from refgrad.ops.fourier import rfftn as rfftn
from refgrad.outputs import offer
from refgrad.tensor import Tensor


def fftfreq(n: int, d: float = 1.0, **options: Unpack[Options]) -> Tensor:
    """The frequencies of `fft` of n samples that lie `d` apart."""
    dtype = pick_dtype("fftfreq", options)
    return finish(np.fft.fftfreq(n, d).astype(dtype.numpy), options)


def rfftfreq(n: int, d: float = 1.0, **options: Unpack[Options]) -> Any:
    """The frequencies of `rfft` of n samples that lie `d` apart."""
    dtype = pick_dtype("rfftfreq", options)
    return finish(np.fft.rfftfreq(n, d).astype(dtype.numpy), options)


offer(globals(), " ".join(name for name in globals() if "fft" in name))
