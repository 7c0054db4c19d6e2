"""Where two backward passes part: the first call, from the end, whose gradient differs."""

from __future__ import annotations

from conformance.checks.base import Case
from conformance.checks.compare import compare
from conformance.engines.base import ALL
from conformance.errors import EngineError, Unsupported

LOOSER = 10.0  # times the tolerance of a leaf: rounding on the way is not the parting


def first_call(case: Case) -> str | None:
    """A sentence that names the call whose rule is to blame, or None where none stands out.

    The backward pass goes from the last call to the first. A call is to blame where the gradients
    of its results agree and that of an operand differs; and where the gradients of all calls agree,
    the leaves' own users are.
    """
    try:
        ours = case.engine.vjp(case.program, case.values, case.cotangents, keep=ALL)
        theirs = case.reference.vjp(case.program, case.values, case.cotangents, keep=ALL)
    except (EngineError, Unsupported):
        return None  # the gradients themselves are already in the evidence
    differs: set[str] = set()
    for call in case.program.calls:
        pairs = zip(ours.kept.get(call.name, ()), theirs.kept.get(call.name, ()), strict=False)
        for left, right in pairs:
            if left is None and right is None:
                continue
            dtype = next(g.dtype for g in (left, right) if g is not None)
            relative = LOOSER * case.relative(dtype)
            if compare(left, right, relative=relative) is not None:
                differs.add(call.name)
    for leaf in case.program.leaves:
        left, right = ours.gradients.get(leaf.name), theirs.gradients[leaf.name]
        relative = LOOSER * case.relative(leaf.dtype)
        if compare(left, right, relative=relative) is not None:
            differs.add(leaf.name)
    for call in reversed(case.program.calls):
        if call.name in differs:
            continue
        wrong = [r.name for r in call.refs if r.name in differs]
        # an operand of several calls differs by the fault of any; the last of them is named
        if wrong:
            return f"{call.name} = {call.target}: its gradient agrees, that of {wrong[0]} differs"
    if case.program.calls and case.program.calls[-1].name in differs:
        last = case.program.calls[-1]
        return f"{last.name} = {last.target}: the gradient differs from the start"
    return None
