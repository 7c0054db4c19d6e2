"""refgrad: an autograd engine in plain NumPy with PyTorch's names and semantics.

`import refgrad as torch` runs ordinary PyTorch code on the CPU, and on CUDA where CuPy is. Nothing
here imports torch.
"""

from __future__ import annotations

import warnings
from math import e as e
from math import inf as inf
from math import nan as nan
from math import pi as pi

from refgrad import autograd as autograd
from refgrad import cuda as cuda
from refgrad import fft as fft
from refgrad import func as func
from refgrad import linalg as linalg
from refgrad import nn as nn
from refgrad import ops as ops
from refgrad import random_methods as random_methods
from refgrad import special as special
from refgrad.autograd import enable_grad as enable_grad
from refgrad.autograd import inference_mode as inference_mode
from refgrad.autograd import is_grad_enabled as is_grad_enabled
from refgrad.autograd import no_grad as no_grad
from refgrad.autograd import set_grad_enabled as set_grad_enabled
from refgrad.autograd.anomaly import is_anomaly_check_nan_enabled as is_anomaly_check_nan_enabled
from refgrad.autograd.anomaly import is_anomaly_enabled as is_anomaly_enabled
from refgrad.conversion import *
from refgrad.creation import *
from refgrad.device import device as device
from refgrad.dtypes import *
from refgrad.func import vmap as vmap
from refgrad.layouts import *
from refgrad.limits import *
from refgrad.memory import keep as _keep
from refgrad.mode import is_inference_mode_enabled as is_inference_mode_enabled
from refgrad.ops.activations import *
from refgrad.ops.adaptive import *
from refgrad.ops.alignment import *
from refgrad.ops.attention import *
from refgrad.ops.casting import *
from refgrad.ops.class_losses import *
from refgrad.ops.comparison import *
from refgrad.ops.complexes import *
from refgrad.ops.convolution import *
from refgrad.ops.counting import *
from refgrad.ops.determinants import *
from refgrad.ops.differences import *
from refgrad.ops.distances import *
from refgrad.ops.dropping import *
from refgrad.ops.elementary import *
from refgrad.ops.embeddings import *
from refgrad.ops.extrema import *
from refgrad.ops.extremes import *
from refgrad.ops.factorisations import *
from refgrad.ops.grouped import *
from refgrad.ops.indexing import *
from refgrad.ops.inplace import *
from refgrad.ops.joining import *
from refgrad.ops.least_squares import *
from refgrad.ops.likelihoods import *
from refgrad.ops.linear import *
from refgrad.ops.losses import *
from refgrad.ops.matrix_norms import *
from refgrad.ops.moments import *
from refgrad.ops.normalisation import *
from refgrad.ops.norms import *
from refgrad.ops.numbered_losses import *
from refgrad.ops.padding import *
from refgrad.ops.pointwise import *
from refgrad.ops.pooling import *
from refgrad.ops.products import *
from refgrad.ops.recurrent import *
from refgrad.ops.reductions import *
from refgrad.ops.reflections import *
from refgrad.ops.resizing import *
from refgrad.ops.scans import *
from refgrad.ops.scattering import *
from refgrad.ops.shaping import *
from refgrad.ops.softmax import *
from refgrad.ops.solving import *
from refgrad.ops.sorting import *
from refgrad.ops.special_functions import *
from refgrad.ops.spectra import *
from refgrad.ops.spectrograms import *
from refgrad.ops.triangles import *
from refgrad.outputs import TOP as _TOP
from refgrad.outputs import offer as _offer
from refgrad.printing import set_printoptions as set_printoptions
from refgrad.random import *
from refgrad.size import Size as Size
from refgrad.tensor import Tensor as Tensor

_offer(globals(), _TOP)
_keep()

__version__ = "0.1.0"

# PyTorch says nothing of overflow or division by zero; only what refgrad computes is meant.
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"refgrad\.")
