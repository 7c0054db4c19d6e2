"""The sweep over ordered pairs of ops: what is composed, what cannot be, and that it is judged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from conformance import checks, engines
from conformance.choose import Seeded
from conformance.program import Call, Input, Program, Ref, Values, refs
from conformance.settings import Settings
from conformance.sources import Item, Sample, Skipped, load
from conformance.sources.grammar import OPS
from conformance.sources.node import Unfit
from conformance.sources.paired import Pairs, draw

TORCH = engines.load("torch")
FEW = ("sin", "exp", "relu", "mul", "sum", "topk", "permute", "view", "split", "expand", "cat",
       "__getitem__", "gather", "mul_", "zero_", "__setitem__", "matmul", "einsum",
       "nn.functional.conv2d", "nn.functional.layer_norm")  # fmt: skip


def drawn(first: str, second: str, **options: str) -> tuple[Program, Values]:
    return draw(Seeded(f"{first}:{second}"), OPS[first], OPS[second], **options)


def pairs(first: str, **settings: object) -> Iterator[Sample | Skipped]:
    return Pairs().samples(Item("pairs", first, first), Settings(**settings))  # type: ignore[arg-type]


def test_every_first_op_is_an_item_and_every_pair_a_sample() -> None:
    assert [item.op for item in load("pairs").items(Settings())] == list(OPS)
    made = list(pairs("permute"))
    assert len(made) == len(OPS)
    assert [s.op for s in made] == [f"permute:{second}" for second in OPS]
    assert sum(isinstance(s, Sample) for s in made) >= 0.95 * len(made)


@pytest.mark.parametrize("first", FEW)
def test_the_second_takes_what_the_first_returned(first: str) -> None:
    composed = 0
    for second in FEW:
        try:
            program, values = drawn(first, second)
        except Unfit:
            continue
        composed += 1
        program.check()
        *earlier, last = program.calls
        made = [call.name for call in earlier if call.target == OPS[first].target]
        if first == "__setitem__":  # it returns nothing: what it wrote into counts
            made = [call.name for call in earlier]
        assert last.target == OPS[second].target
        assert {ref.name for ref in last.refs} & set(made)
        run = TORCH.run(program, values)
        assert all(np.isfinite(y).all() for y in run.outputs)
        assert any(ref.name in (last.name, *(r.name for r in last.refs))
                   for ref in refs(program.outputs))  # fmt: skip
        ones = [np.ones_like(y) if y.dtype.kind == "f" else None for y in run.outputs]
        assert TORCH.vjp(program, values, ones).gradients
    assert composed >= 0.8 * len(FEW)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("exp", "exp_", "torch does not differentiate it: one of the variables needed"),
        ("le", "cosh", "cosh: no place for a bool"),
        ("argsort", "sum", "sum: no place for a int64"),
        ("cosh", "acos", "acos: no place for a float64 of that shape and those values"),
        ("baddbmm", "mm", "mm: no place for a float64"),
        ("zero_", "std", "std: values from 0.0 to 0.0"),
    ],
)
def test_a_pair_that_does_not_compose_says_why(first: str, second: str, reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        drawn(first, second)
    name = f"{first}:{second}"
    (said,) = (s for s in pairs(first, expression=name) if s.op == name)
    assert isinstance(said, Skipped)
    assert said.reason.startswith(reason)
    assert said.outcome == "unsupported"


def test_masks_and_indices_are_composed_too() -> None:
    program, _ = drawn("le", "where")
    assert program.calls[-1].args[0].name == program.calls[0].name
    program, _ = drawn("argsort", "gather")
    assert program.calls[-1].args[2].name == program.calls[0].name


def test_the_same_seed_draws_the_same_pairs() -> None:
    def digests(seed: int) -> list[str]:
        chosen = {"seed": seed, "expression": "softmax:s"}
        made = pairs("softmax", **chosen)
        return [s.program.digest(s.values) for s in made if isinstance(s, Sample)]

    assert digests(1) == digests(1)
    assert len(digests(1)) > 5
    assert digests(1) != digests(2)


def test_only_pairs_that_k_may_choose_are_drawn() -> None:
    made = [s.op for s in pairs("sin", expression="permute or topk")]
    assert made == ["sin:topk", "sin:permute"]


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_pairs_of_other_dtypes(dtype: str) -> None:
    program, values = drawn("mul", "sum", dtype=dtype)
    assert {values[i.name].dtype.name for i in program.inputs} == {dtype}
    (skipped,) = pairs("sin", dtypes=("float16",))
    assert isinstance(skipped, Skipped)
    with pytest.raises(Unfit, match="floor"):
        drawn("floor", "sin", dtype="complex128")


def test_refgrad_is_right_about_pairs() -> None:
    chosen = Settings(checks=("value", "vjp", "numerical"), standalone=0)
    context = checks.context_for(chosen)
    for first in ("permute", "mul_", "__getitem__", "einsum"):
        for sample in pairs(first, expression=" or ".join(f"{first}:{op}" for op in FEW)):
            if isinstance(sample, Sample) and sample.op.partition(":")[2] in FEW:
                for result in checks.check_sample(sample, context, "pairs"):
                    assert result.outcome == "passed", (sample.label, result.evidence)


def test_an_output_that_cancels_to_zero_is_no_wrong_value() -> None:
    x, y = np.full((1, 2), -0.47495449939700096), np.array([[50.0], [-50.0]])
    inputs = tuple(Input.of(n, v, requires_grad=True) for n, v in (("x0", x), ("x1", y)))
    program = Program(inputs, (Call("v0", "torch.matmul", (Ref("x0"), Ref("x1"))),), Ref("v0"))
    context = checks.context_for(Settings(checks=("value",), standalone=0))
    sample = Sample("matmul", program, {"x0": x, "x1": y})
    (result,) = checks.check_sample(sample, context, "pairs")
    assert result.outcome == "passed"
