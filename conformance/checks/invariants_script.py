"""A standalone script for each invariant that shows an engine breaking it."""

from __future__ import annotations

from conformance import script
from conformance.checks.base import Case
from conformance.program import refs

_TOLERANCE = "1e-11"  # of the largest entry

# What `found` is, given `run` (leaves to outputs), `leaves`, `weights` (a cotangent an output), and
# `grad`. `expected` is the plain gradient unless it is said otherwise.
_AGAIN = "found = grad(run(*leaves), {})"
_TURN = "turn = lambda t: torch.flip(t, tuple(range(t.ndim)))"
_AXES = "back = lambda t: tuple(range(t.ndim))[::-1]"
_LAID = {
    "transposed": [_AXES, "laid = lambda t: t.detach().permute(back(t)).contiguous()"
                   ".permute(back(t))"],
    "strided": ["laid = lambda t: torch.stack([t.detach(), t.detach()], -1)[..., 0]"],
}  # fmt: skip
_LAZY = {  # in place: the memory keeps its layout
    "negated": "lazy = lambda t: torch._neg_view(t.detach().neg_())",
    "conjugated": "lazy = lambda t: t.detach().conj_physical_().conj()",
}
_SNIPPETS: dict[str, list[str]] = {
    "create_graph": [
        "[w.requires_grad_() for w in weights]",
        _AGAIN.format("create_graph=True"),
    ],
    "retain_graph": [
        "outputs = run(*leaves)",
        "first = grad(outputs, retain_graph=True)",
        "expected = [g if g is None else g.clone() for g in first]  # of memory that is written",
        "found = grad(outputs)",
    ],
    "subset": ["found = [grad(run(*leaves), of=[leaf])[0] for leaf in leaves]"],
    "flipped_inputs": [
        _TURN,
        "ends = [turn(x.detach()).requires_grad_() for x in leaves]",
        "found = grad(run(*[turn(x) for x in ends]), of=ends)",
        "found = [g if g is None else turn(g) for g in found]",
    ],
    "flipped_cotangents": [
        _TURN,
        "found = grad([turn(y) for y in run(*leaves)], [turn(w) for w in weights])",
    ],
    "expanded_cotangents": [
        "found, expected = (), ()",
        "for n in range(-1, max(w.ndim for w in weights)):  # expanded but for axis n",
        "    place = lambda w: tuple(slice(None if a == n else 1) for a in range(w.ndim))",
        "    wide = [w[place(w)].expand(w.shape) for w in weights]",
        "    expected += grad(run(*leaves), [w.clone() for w in wide])",
        "    found += grad(run(*leaves), wide)",
    ],
    "unmodified": [
        "outputs = run(*leaves)",
        "kept = [*leaves, *outputs, *weights]",
        "expected = [t.detach().clone() for t in kept]",
        "grad(outputs)",
        "found = kept",
    ],
    "form": [
        "pairs = [(g, x) for g, x in zip(expected, leaves) if g is not None]",
        "same = [g.dtype == x.dtype and g.shape == x.shape for g, x in pairs]",
        "fine = [s and not g.requires_grad for s, (g, _) in zip(same, pairs)]",
        "found, expected = [torch.tensor(float(f)) for f in fine], [torch.ones(()) for _ in fine]",
    ],
    "accumulated": [
        "for _ in range(2):",
        "    torch.autograd.backward(run(*leaves), weights)",
        "found, expected = [x.grad for x in leaves], [g if g is None else 2 * g for g in expected]",
    ],
    "preset_grad": [
        "for leaf in leaves:",
        "    leaf.grad = torch.ones_like(leaf)",
        "torch.autograd.backward(run(*leaves), weights)",
        "found = [x.grad for x in leaves]",
        "expected = [torch.ones(()) if g is None else 1 + g for g in expected]",
    ],
    "readable": [
        "import os",
        "heads = [g for g in grad(run(*leaves), create_graph=True) if getattr(g, 'grad_fn', 0)]",
        "both = [*heads, *(grad(heads, [torch.ones_like(g) for g in heads]) if heads else ())]",
        "read = lambda: any(g.numpy(force=True).sum() is None for g in both if g is not None)",
        "status = os.waitpid(os.fork() or read() or os._exit(0), 0)[1]",
        "found, expected = [torch.tensor(status)], [torch.tensor(0)]",
    ],
    "own_memory": [
        "for _ in range(3):  # what shares memory is added to twice",
        "    torch.autograd.backward(run(*leaves), weights)",
        "found, expected = [x.grad for x in leaves], [g if g is None else 3 * g for g in expected]",
    ],
    "batched": [
        "stacked = [torch.stack([w, 2 * w]) for w in weights]",
        "found = [g[1] for g in grad(run(*leaves), stacked, is_grads_batched=True)]",
        "expected = [2 * g for g in expected]",
    ],
    "hooks": [
        "expected = [g if g is None else 2 * g + 1 for g in expected]",
        "[x.register_hook(h) for x in leaves for h in (lambda g: g * 2, lambda g: g + 1)]",
        "torch.autograd.backward(run(*leaves), weights)",
        "found = [x.grad for x in leaves]",
    ],
    "linear": [
        "single = lambda w: (torch.arange(w.numel()).reshape(w.shape) == 0).to(w.dtype)",
        "ones, e = [torch.ones_like(w) for w in weights], [single(w) for w in weights]",
        "found = grad(run(*leaves), [3 * w + 1 + k for w, k in zip(weights, e)])",
        "each = zip(expected, grad(run(*leaves), ones), grad(run(*leaves), e))",
        "expected = [None if g is None else 3 * g + h + k for g, h, k in each]",
    ],
    "undefined": [
        "found, expected = [], []",
        "for n, w in enumerate(weights):",
        "    rest = weights[:n] + weights[n + 1:]",
        "    found += grad([y for k, y in enumerate(run(*leaves)) if k != n], rest)",
        "    expected += grad(run(*leaves), weights[:n] + [0 * w] + weights[n + 1:])",
    ],
    "apart": [
        "parts = [grad(run(*leaves)[n:n + 1], [w]) for n, w in enumerate(weights)]",
        "found = [sum((g for g in p if g is not None), torch.zeros(())) for p in zip(*parts)]",
    ],
    "zero": [
        "found = grad(run(*leaves), [0 * w for w in weights])",
        "expected = [torch.zeros_like(x) for x in leaves]",
    ],
    "scaled": [
        "found, each = [], expected",
        "for scale in (2.0**20, 2.0**-20):",
        "    far = grad(run(*leaves), [w * scale for w in weights])",
        "    found += [g if g is None else g / scale for g in far]",
        "expected = each + each",
    ],
    "mask": [
        "alone = lambda n: [x if k == n else x.detach() for k, x in enumerate(leaves)]",
        "found = [grad(run(*alone(n)), of=[x])[0] for n, x in enumerate(leaves)]",
    ],
    "transposed_cotangents": [
        *_LAID["transposed"], "found = grad(run(*leaves), [laid(w) for w in weights])",
    ],
    "strided_cotangents": [
        *_LAID["strided"], "found = grad(run(*leaves), [laid(w) for w in weights])",
    ],
    "transposed_inputs": [
        *_LAID["transposed"], "other = [laid(x).requires_grad_() for x in leaves]",
        "found = grad(run(*other), of=other)",
    ],
    "strided_inputs": [
        *_LAID["strided"], "other = [laid(x).requires_grad_() for x in leaves]",
        "found = grad(run(*other), of=other)",
    ],
    "expanded_inputs": [
        "wide = [x.detach().reshape(-1)[0].expand(x.shape).requires_grad_() for x in leaves]",
        "copies = [x.detach().clone().requires_grad_() for x in wide]",
        "expected, found = grad(run(*copies), of=copies), grad(run(*wide), of=wide)",
    ],
    **{
        f"{bit}_cotangents": [lazy, "found = grad(run(*leaves), [lazy(w) for w in weights])"]
        for bit, lazy in _LAZY.items()
    },
    **{
        f"{bit}_inputs": [
            lazy, "other = [lazy(x).requires_grad_() for x in leaves]",
            "found = grad(run(*other), of=other)",
        ]
        for bit, lazy in _LAZY.items()
    },
    "deterministic": ["found = grad(run(*leaves))"],
    "recording": [
        "expected = run(*leaves)",
        "with torch.no_grad():",
        "    found = run(*leaves)",
    ],
}  # fmt: skip

# Those that compare with something else than the plain gradient.
_APART = {"retain_graph", "expanded_cotangents", "unmodified", "undefined", "zero"}
_APART |= {"same_tensor", "expanded_inputs", "recording", "readable"}


def written(name: str, case: Case) -> str | None:
    """A script that exits 1 where the invariant is broken, else 0; None for those without one."""
    program, helpers = case.program, set[str]()
    shared = program.aliased
    body = _SNIPPETS.get(name) if name != "same_tensor" else _same(case)
    if body is None or shared or any(call.in_place for call in program.calls):
        return None
    leaves = ", ".join(i.name for i in program.leaves)
    outputs = [str(ref) for ref in refs(program.outputs)]
    pairs = [(y, c) for y, c in zip(outputs, case.cotangents, strict=False) if c is not None]
    weights = [script.tensor(c, c.dtype.name, None, helpers) for _, c in pairs]
    made = script.input_lines(program.inputs, case.values, None, helpers)
    if helpers or len(outputs) != len(case.cotangents):
        return None  # too many numbers for a short script
    tolerance = (
        "0" if name == "deterministic" else f"{_TOLERANCE} * numpy.abs(right).max(initial=0)"
    )
    lines = [
        *("import sys", "", "import numpy"),
        script.binding(case.engine.name),
        *("", *made),
        f"def run({leaves}):",
        *(f"    {line}" for line in script.call_lines(program.calls)),
        f"    return [{', '.join(y for y, _ in pairs)}]",
        f"leaves, weights = [{leaves}], [{', '.join(weights)}]",
        "def grad(outputs, weights=weights, of=leaves, **options):",
        "    return torch.autograd.grad(outputs, of, weights, allow_unused=True, **options)",
        *([] if name in _APART else ["expected = grad(run(*leaves))"]),
        *body,
        "wrong = 0",
        "for left, right in zip(found, expected):",
        "    left, right = (numpy.zeros(()) if g is None else g.detach().cpu().numpy() "
        "for g in (left, right))",
        "    print(left, 'should be', right)",
        f"    wrong |= not numpy.allclose(left, right, 0, {tolerance}, equal_nan=True)",
        "sys.exit(int(wrong))",
    ]
    return "\n".join(lines) + "\n"


def _same(case: Case) -> list[str] | None:
    """The first two leaves of one shape, as one tensor."""
    leaves = case.program.leaves
    for a, one in enumerate(leaves):
        for b in range(a + 1, len(leaves)):
            if (one.shape, one.dtype) == (leaves[b].shape, leaves[b].dtype):
                return [
                    f"leaves[{b}] = leaves[{a}].detach().clone().requires_grad_()",
                    "apart = grad(run(*leaves), of=leaves)",
                    f"expected = [apart[{a}] + apart[{b}]]",
                    f"leaves[{b}] = leaves[{a}]",
                    f"found = grad(run(*leaves), of=[leaves[{a}]])",
                ]
    return None
