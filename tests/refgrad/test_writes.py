"""Writes in place and out= among recorded calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import refgrad
from tests.refgrad.both import both, leaf


class TestInPlace:
    def test_a_non_leaf_takes_over_the_history(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * x
            y.mul_(x).add_(1)
            y[0] = x[1] * 5
            y.sum().backward()
            return y, x.grad

        both(code)

    def test_parameters_are_written_under_no_grad(self) -> None:
        def code(t: Any) -> Any:
            w = leaf(t, 1.0, -2.0)
            for _ in range(5):
                loss = ((w - 3) ** 2).sum()
                loss.backward()
                with t.no_grad():
                    w -= 0.1 * w.grad
                w.grad = None
            return w, w.requires_grad, w.is_leaf

        both(code)

    def test_versions(self) -> None:
        def code(t: Any) -> Any:
            x = t.zeros(3)
            view = x[:2]
            before = x._version
            view.add_(1)
            return before, x._version, x

        both(code)

    def test_a_detached_leaf_may_be_written(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            x.detach().mul_(2)
            x.detach()[0] = 7.0
            return x, x._version

        both(code)

    def test_data_is_outside_the_graph_and_its_checks(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 2.0)
            y = x * x
            x.data.mul_(3)
            y.backward()
            first = x.grad, x._version
            x.data = t.ones(3, dtype=t.float64)
            return first, x, x.requires_grad

        both(code)

    def test_detach_and_requires_grad_of_results(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = (x * 2).detach_()
            z = t.ones(2)
            view = z[0].requires_grad_()
            return y.requires_grad, y.is_leaf, view.requires_grad, z.requires_grad, view.is_leaf

        both(code)


class TestOut:
    @pytest.mark.parametrize(
        "code",
        [
            lambda t, o: t.sin(t.ones(2), out=o),
            lambda t, o: t.add(t.ones(2), 1, alpha=3, out=o),
            lambda t, o: t.sum(t.ones(3, 2), 0, out=o),
            lambda t, o: t.cat([t.ones(1), t.zeros(1)], out=o),
            lambda t, o: t.mv(t.ones(2, 3), t.ones(3), out=o),
            lambda t, o: t.softmax(t.arange(2.0), 0, out=o),
            lambda t, o: t.linalg.solve(2 * t.eye(2), t.ones(2), out=o),
            lambda t, o: t.arange(2, out=o),
            lambda t, o: t.std(t.eye(2), 0, out=o),
        ],
    )
    def test_is_written_and_returned(self, code: Any) -> None:
        def run(t: Any) -> Any:
            base = t.zeros(4)
            outs = t.empty(2), t.empty(0), base[::2]
            return [(code(t, o) is o, o, o._version) for o in outs], base

        both(run)

    def test_of_several_results(self) -> None:
        def code(t: Any) -> Any:
            x = t.tensor([[1.0, 2.0], [3.0, 0.0]])
            values, indices = t.empty(2), t.empty(2, dtype=t.int64)
            t.max(x, 0, out=(values, indices))
            first = values.clone(), indices.clone()
            t.sort(x[0], out=(values, indices))
            return first, values, indices

        both(code)

    def test_a_resize_warns(self) -> None:
        def code(t: Any) -> Any:
            o = t.empty(3)
            with pytest.warns(UserWarning, match="was resized"):
                t.sin(t.ones(2), out=o)
            return o

        both(code)

    def test_of_another_dtype_and_none(self) -> None:
        def code(t: Any) -> Any:
            o = t.empty(2, dtype=t.float64)
            return t.sqrt(t.full((2,), 4.0), out=o), t.sqrt(t.ones(2), out=None)

        both(code)

    def test_within_no_grad(self) -> None:
        def code(t: Any) -> Any:
            x, o = leaf(t, 1.0), leaf(t, 2.0)
            with t.no_grad():
                t.sin(x, out=o)
            return o, o.requires_grad, o.is_leaf

        both(code)


MATRIX = [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [3.0, -2.0, 1.0]]

RESULTS = {
    "max": lambda t, x: t.max(x, 1),
    "sort": lambda t, x: t.sort(x, 1),
    "cummax": lambda t, x: t.cummax(x, 1),
    "kthvalue": lambda t, x: t.kthvalue(x, 2, 1),
    "median": lambda t, x: t.median(x, 1),
    "mode": lambda t, x: t.mode(x, 1),
    "frexp": lambda t, x: t.frexp(x),
    "max_pool1d": lambda t, x: t.nn.functional.max_pool1d(x[None], 2, return_indices=True),
    "lu_factor": lambda t, x: t.linalg.lu_factor(x),
    "inv_ex": lambda t, x: t.linalg.inv_ex(x),
}

INDICES = {
    "gather": lambda t, x, i: t.gather(x, 1, i[None]),
    "index_select": lambda t, x, i: t.index_select(x, 0, i),
    "an index": lambda t, x, i: x[i],
    "a mask": lambda t, x, i: x[i > 0],
    "take": lambda t, x, i: t.take(x, i),
    "embedding": lambda t, x, i: t.nn.functional.embedding(i, x),
    "scatter": lambda t, x, i: t.scatter(x, 1, i[None], 2.0),
    "index_add, which reads none": lambda t, x, i: x.index_add(0, i, t.ones_like(x.detach())),
}

MASKS = {
    "where": lambda t, x, m: t.where(m, x, 0.0),
    "masked_fill": lambda t, x, m: x.masked_fill(m, 2.0),
    "masked_select": lambda t, x, m: x.masked_select(m),
}


class TestWhatHasNoGradient:
    """Indices and masks that a rule reads are not to be written: the gradient would be another."""

    @pytest.mark.parametrize("name", RESULTS)
    def test_results(self, name: str) -> None:
        self.alike(lambda t, x: RESULTS[name](t, x)[::-1])

    @pytest.mark.parametrize("name", INDICES)
    def test_indices(self, name: str) -> None:
        def code(t: Any, x: Any) -> Any:
            i = t.tensor([0, 2, 1])
            return i, INDICES[name](t, x, i)

        self.alike(code)

    @pytest.mark.parametrize("name", MASKS)
    def test_masks(self, name: str) -> None:
        def code(t: Any, x: Any) -> Any:
            m = x.detach() > 0
            return m, MASKS[name](t, x, m)

        self.alike(code)

    def test_that_the_one_result_of_slogdet_which_no_rule_reads_may_be_written(self) -> None:
        def code(t: Any) -> Any:
            x = t.tensor(MATRIX, dtype=t.float64, requires_grad=True)
            _, size = t.linalg.slogdet(x)
            size.exp_()
            size.backward()
            return x.grad

        both(code)

    def test_classes_are_those_of_the_call(self) -> None:
        x = leaf(refgrad, 0.5, -1.0, 2.0)
        target = refgrad.tensor(2)
        loss = refgrad.nn.functional.nll_loss(x, target)
        target.zero_()
        loss.backward()
        assert x.grad.tolist() == [0.0, 0.0, -1.0]

    @staticmethod
    def alike(code: Any) -> None:
        """Write what the code returns first, and differentiate the other: both refuse, or none."""
        raised = []
        for t in (torch, refgrad):
            x = t.tensor(MATRIX, dtype=t.float64, requires_grad=True)
            read, y = code(t, x)
            read.logical_not_() if read.dtype is t.bool else read.zero_()
            try:
                y.sum().backward()
                raised.append("")
            except RuntimeError as error:
                raised.append("modified by an inplace operation" in str(error))
        assert raised[0] == raised[1], raised
