"""What a write to a view is to the tensor it is a view of."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops.op import op


@op(method=False, node_name="CopySlices")
def view_write(input: Any, value: Any, replay: Any) -> Any:
    """`input` with `value` in the part that `replay` views."""
    out = replay.copy(input)
    replay(out)[...] = value
    return out


@op(method=False)
def clear_view(input: Any, replay: Any) -> Any:
    """`input` with zeros in the part that `replay` views."""
    out = replay.copy(input)
    replay(out)[...] = 0
    return out


def _part(g: Any, replay: Any) -> Any:
    """The part of g that was viewed; by Re(g dz) an imaginary part i dy gets -Im(g)."""
    part = replay(np.conj(g) if np.iscomplexobj(g) else g)
    return np.conj(part) if np.iscomplexobj(part) else part


view_write.vjp(  # what was overwritten gets nothing, what was written gets its part
    input=lambda g, replay: clear_view(g, replay),
    value=_part,
)
clear_view.vjp(input=lambda g, replay: clear_view(g, replay))
