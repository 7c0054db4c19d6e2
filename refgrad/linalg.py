"""torch.linalg: linear algebra on batches of matrices."""

from __future__ import annotations

from typing import Any

from refgrad.errors import LinAlgError as LinAlgError
from refgrad.ops.determinants import det as det
from refgrad.ops.determinants import matrix_exp as matrix_exp
from refgrad.ops.determinants import slogdet as slogdet
from refgrad.ops.factorisations import cholesky as _cholesky
from refgrad.ops.factorisations import cholesky_ex as cholesky_ex
from refgrad.ops.factorisations import linalg_lu as lu
from refgrad.ops.factorisations import linalg_lu_solve as lu_solve
from refgrad.ops.factorisations import linalg_qr as qr
from refgrad.ops.factorisations import lu_factor as lu_factor
from refgrad.ops.factorisations import lu_factor_ex as lu_factor_ex
from refgrad.ops.least_squares import lstsq as lstsq
from refgrad.ops.least_squares import pinv as pinv
from refgrad.ops.matrix_norms import cond as cond
from refgrad.ops.matrix_norms import cross as cross
from refgrad.ops.matrix_norms import diagonal as diagonal
from refgrad.ops.matrix_norms import linalg_vander as vander
from refgrad.ops.matrix_norms import matrix_norm as matrix_norm
from refgrad.ops.matrix_norms import matrix_rank as matrix_rank
from refgrad.ops.matrix_norms import multi_dot as multi_dot
from refgrad.ops.matrix_norms import norm as norm
from refgrad.ops.matrix_norms import vecdot as vecdot
from refgrad.ops.norms import vector_norm as vector_norm
from refgrad.ops.products import matmul as matmul
from refgrad.ops.products import matrix_power as matrix_power
from refgrad.ops.reflections import householder_product as householder_product
from refgrad.ops.reflections import ldl_factor as ldl_factor
from refgrad.ops.reflections import ldl_factor_ex as ldl_factor_ex
from refgrad.ops.reflections import ldl_solve as ldl_solve
from refgrad.ops.solving import inv as inv
from refgrad.ops.solving import inv_ex as inv_ex
from refgrad.ops.solving import solve as solve
from refgrad.ops.solving import solve_ex as solve_ex
from refgrad.ops.solving import solve_triangular as solve_triangular
from refgrad.ops.solving import tensorinv as tensorinv
from refgrad.ops.solving import tensorsolve as tensorsolve
from refgrad.ops.spectra import eig as eig
from refgrad.ops.spectra import eigh as eigh
from refgrad.ops.spectra import eigvals as eigvals
from refgrad.ops.spectra import eigvalsh as eigvalsh
from refgrad.ops.spectra import linalg_svd as svd
from refgrad.ops.spectra import svdvals as svdvals
from refgrad.outputs import offer as _offer


def cholesky(A: Any, *, upper: bool = False) -> Any:
    """The L of A = L L^H, or the U of A = U^H U, for Hermitian positive-definite matrices."""
    return _cholesky(A, upper)


_offer(globals())
