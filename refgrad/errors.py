"""refgrad's own exceptions; everything else is raised as PyTorch raises it.

RuntimeError
└── LinAlgError     a factorisation failed: the matrix is singular or not positive-definite
"""

from __future__ import annotations


class LinAlgError(RuntimeError):
    """A factorisation failed, as torch.linalg.LinAlgError."""
