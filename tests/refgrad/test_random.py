"""refgrad's random tensors: shapes, dtypes and errors as torch's, values by their distributions."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import refgrad

from .both import both, both_raise


def said(module, code):
    """What code gives, but for the numbers drawn; or its error's class."""
    try:
        made = eval(code, {"T": module, "p": module.tensor([0.1, 0.2, 0.7])})
    except Exception as error:
        return type(error).__name__
    if isinstance(made, module.Tensor):
        return (repr(made.dtype), tuple(made.shape), made.requires_grad)
    return repr(made)


CALLS = """
T.rand(2, 3) | T.rand((2,)) | T.rand(()) | T.rand() | T.rand(-1) | T.rand(size=(2,)) | T.rand(2.0)
T.rand(2, dtype=T.float64) | T.rand(2, dtype=T.float16) | T.rand(2, dtype=T.complex64)
T.rand(2, dtype=T.int64) | T.rand(2, dtype=T.bool) | T.rand(2, requires_grad=True)
T.rand(2, generator=T.Generator()) | T.rand(2, generator=3) | T.rand(2, foo=1) | T.randn(2, 3)
T.randn(2, dtype=T.complex128) | T.randn(2, dtype=T.float16) | T.randn(size=(2,))
T.randn(2, dtype=T.int32) | T.randn(2, requires_grad=True) | T.rand_like(T.ones(2, 3))
T.rand_like(T.arange(2)) | T.rand_like(T.arange(2), dtype=T.float32) | T.randn_like(T.arange(2))
T.randn_like(T.ones(2, dtype=T.float64), requires_grad=True) | T.randn_like(3) | T.randint(3, (2,))
T.randint(1, 3, (2,)) | T.randint(1, 3, [2], dtype=T.float32) | T.randint(3, 3, (2,))
T.randint(0, (2,)) | T.randint(5, 1, (2,)) | T.randint(3, 2) | T.randint(3)
T.randint(3, size=(2,)) | T.randint(low=1, high=3, size=(2,)) | T.randint(high=3, size=(2,))
T.randint(0, 300, (2,), dtype=T.uint8) | T.randint(-1, 3, (2,), dtype=T.uint8)
T.randint(0, 3, (2,), dtype=T.bool) | T.randint(0, 2, (2,), dtype=T.bool) | T.randint(2**63, (2,))
T.randint(0, 2, (2,), dtype=T.complex64) | T.randint(0.0, 2.0, (2,)) | T.randint(T.tensor(3), (2,))
T.randint(-2**63, 2**63 - 1, (2,)) | T.randint(0, 3, (2,), requires_grad=True)
T.randint_like(T.arange(2), 3) | T.randint_like(T.ones(2), 1, 3) | T.randint_like(T.ones(2), 3, 1)
T.randint_like(T.ones(2), 3, dtype=T.int32) | T.randint_like(T.ones(2), low=1, high=3)
T.randperm(4) | T.randperm(4, dtype=T.int32) | T.randperm(4, dtype=T.float32) | T.randperm(-1)
T.randperm(0) | T.randperm(300, dtype=T.uint8) | T.randperm(4.0) | T.bernoulli(p)
T.bernoulli(p, 0.5) | T.bernoulli(p, p=0.3) | T.bernoulli(T.arange(3), 0.5)
T.bernoulli(T.tensor([2.0])) | T.bernoulli(T.tensor([-1.0]))
T.bernoulli(T.tensor([float('nan')])) | T.bernoulli(T.tensor([1])) | T.bernoulli(p, 2.0)
T.bernoulli(p.requires_grad_()) | T.normal(0.0, 1.0, (2,)) | T.normal(0, 1, size=(2, 3))
T.normal(0.0, -1.0, (2,)) | T.normal(0.0, 1.0) | T.normal(T.zeros(3))
T.normal(T.zeros(3), T.ones(3)) | T.normal(T.zeros(3), 2.0) | T.normal(0.0, T.ones(3))
T.normal(T.zeros(2, 1), T.ones(3)) | T.normal(T.zeros(2), T.ones(3))
T.normal(T.zeros(3), -T.ones(3)) | T.normal(T.arange(3)) | T.normal(p.requires_grad_())
T.normal(T.zeros(3, dtype=T.float64), T.ones(3)) | T.normal(T.zeros(3), T.ones(3, dtype=T.float64))
T.normal(mean=T.zeros(3), std=1.0) | T.normal(0.0, 1.0, (2,), dtype=T.float64)
T.normal(0.0, 1.0, (2,), dtype=T.int64) | T.normal(0.0, 1.0, (2,), dtype=T.complex64)
T.normal(T.zeros(3), T.ones(3), (3,)) | T.normal(0.0, p.requires_grad_()) | T.multinomial(p, 2)
T.multinomial(p, 4) | T.multinomial(p, 4, replacement=True) | T.multinomial(T.ones(2, 3), 2)
T.multinomial(T.ones(2, 3), 5, True) | T.multinomial(p, 0) | T.multinomial(T.zeros(2), 1)
T.multinomial(T.tensor([-1.0, 2.0]), 1) | T.multinomial(T.arange(3), 1)
T.multinomial(T.tensor([float('nan'), 2.0]), 1) | T.multinomial(T.tensor([float('inf'), 2.0]), 1)
T.multinomial(T.zeros(0), 1) | T.multinomial(T.ones(2, 2, 2), 1) | T.multinomial(T.tensor(1.0), 1)
T.poisson(p) | T.poisson(T.tensor([1])) | T.poisson(T.tensor([-1.0]))
T.poisson(p.requires_grad_()) | T.manual_seed('a') | T.manual_seed(-1).initial_seed()
T.manual_seed(2**64) | T.manual_seed(2**64 - 1).initial_seed() | T.manual_seed(-2**63 - 1)
T.manual_seed(1.5).initial_seed() | T.Generator().manual_seed(1.5)
T.Generator().manual_seed(3).initial_seed() | T.Generator(device='cpu').device
T.Generator('cuda') | T.Generator().get_state().dtype
T.Generator().set_state(T.zeros(3, dtype=T.uint8)) | T.set_rng_state(T.get_rng_state())
T.empty(3).uniform_() | T.empty(3).uniform_(1, 2) | T.empty(3).uniform_(2, 1)
T.arange(3).uniform_() | T.empty(3).uniform_(to=3) | T.empty(3).uniform_(**{'from': 2, 'to': 3})
T.empty(3).uniform_(foo=1) | T.empty(3).normal_() | T.empty(3).normal_(0, -1)
T.arange(3).normal_() | T.empty(3).normal_(mean=2) | T.arange(3).random_(5) | T.arange(3).random_()
T.arange(3).random_(2, 5) | T.arange(3).random_(5, 5) | T.empty(3).random_()
T.arange(3, dtype=T.uint8).random_() | T.empty(3).bernoulli_() | T.empty(3).bernoulli_(0.2)
T.empty(3).bernoulli_(p) | T.arange(3).bernoulli_(0.2) | T.empty(3).bernoulli_(1.2)
T.empty(3).bernoulli_(p + 1) | T.empty(3).exponential_() | T.empty(3).exponential_(-1.0)
T.arange(3).exponential_() | T.empty(3).cauchy_() | T.empty(3).cauchy_(0.0, -1.0)
T.empty(3).log_normal_() | T.empty(3).log_normal_(0.0, -1.0) | T.empty(3).geometric_(0.5)
T.empty(3).geometric_(1.5) | T.arange(3).geometric_(0.5) | T.empty(3, requires_grad=True).normal_()
(T.ones(3, requires_grad=True) * 1).normal_()
"""


@pytest.mark.parametrize("code", [c for line in CALLS.strip().split("\n")
                                  for c in line.split(" | ")])  # fmt: skip
def test_shapes_dtypes_and_errors_are_torchs(code):
    assert said(refgrad, code) == said(torch, code)


@pytest.mark.parametrize("draw", [
    lambda: refgrad.rand(50), lambda: refgrad.randn(50), lambda: refgrad.randperm(50),
    lambda: refgrad.randint(9, (50,)), lambda: refgrad.bernoulli(refgrad.full((50,), 0.5)),
    lambda: refgrad.multinomial(refgrad.ones(50), 40), lambda: refgrad.zeros(50).exponential_(),
])  # fmt: skip
def test_a_seed_decides_what_is_drawn(draw):
    refgrad.manual_seed(5)
    first, second = draw(), draw()
    refgrad.manual_seed(5)
    assert draw().tolist() == first.tolist() != second.tolist()
    state = refgrad.get_rng_state()
    assert draw().tolist() == second.tolist()
    refgrad.set_rng_state(state)
    with refgrad.random.fork_rng():
        assert draw().tolist() == second.tolist()
    assert draw().tolist() == second.tolist()


def test_a_generator_is_apart_from_the_default_one():
    own = refgrad.Generator().manual_seed(7)
    refgrad.manual_seed(1)
    before = refgrad.get_rng_state().tolist()
    first = refgrad.rand(4, generator=own)
    assert refgrad.get_rng_state().tolist() == before
    going_on = own.clone_state()
    assert refgrad.rand(4, generator=going_on).tolist() == refgrad.rand(4, generator=own).tolist()
    assert refgrad.rand(4, generator=own.manual_seed(7)).tolist() == first.tolist()
    assert own.seed() == own.initial_seed()
    assert refgrad.seed() == refgrad.initial_seed()


N = 20_000
DISTRIBUTIONS = {  # the mean and the variance, of draws of N
    "uniform": (lambda T: T.rand(N), 0.5, 1 / 12),
    "half": (lambda T: T.rand(N, dtype=T.float16), 0.5, 1 / 12),
    "uniform_": (lambda T: T.empty(N).uniform_(2, 5), 3.5, 9 / 12),
    "normal": (lambda T: T.randn(N), 0, 1),
    "normal_": (lambda T: T.empty(N).normal_(2, 3), 2, 9),
    "normals": (lambda T: T.normal(T.full((N,), 2.0), T.full((N,), 3.0)), 2, 9),
    "complex": (lambda T: T.randn(N, dtype=T.complex64), 0, 1),
    "randint": (lambda T: T.randint(2, 12, (N,)), 6.5, 99 / 12),
    "random_": (lambda T: T.empty(N).random_(10), 4.5, 99 / 12),
    "bernoulli": (lambda T: T.bernoulli(T.full((N,), 0.2)), 0.2, 0.16),
    "bernoulli_": (lambda T: T.empty(N).bernoulli_(0.2), 0.2, 0.16),
    "poisson": (lambda T: T.poisson(T.full((N,), 4.0)), 4, 4),
    "exponential": (lambda T: T.empty(N).exponential_(2.0), 0.5, 0.25),
    "geometric": (lambda T: T.empty(N).geometric_(0.25), 4, 12),
    "log_normal": (lambda T: T.empty(N).log_normal_(0, 0.5).log(), 0, 0.25),
    "cauchy": (lambda T: T.empty(N).cauchy_(0.5, 2.0).sub(0.5).div(2.0).atan(), 0, np.pi**2 / 12),
    "multinomial": (lambda T: T.multinomial(T.tensor([1.0, 3.0]), N, True), 0.75, 3 / 16),
    "first": (lambda T: T.multinomial(T.tensor([[1.0, 3.0, 0.0]]).expand(N, 3), 1), 0.75, 3 / 16),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_have_the_mean_and_variance_of_their_distribution(name):
    draw, mean, variance = DISTRIBUTIONS[name]
    refgrad.manual_seed(0)
    drawn = draw(refgrad).numpy().astype(complex).ravel()
    assert abs(drawn.mean() - mean) < 6 * np.sqrt(variance / N)
    assert abs(drawn.var() - variance) < 0.15 * variance


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniform_draws_are_below_one(dtype):
    refgrad.manual_seed(0)
    drawn = refgrad.rand(N, dtype=getattr(refgrad, dtype)).numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1


def test_a_permutation_has_every_index_once():
    assert sorted(refgrad.randperm(100).tolist()) == list(range(100))


@given(st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=1, max_size=6).filter(any), st.data())
def test_multinomial_draws_no_index_twice_and_none_of_weight_zero(weights, data):
    positive = sum(w > 0 for w in weights)
    count = data.draw(st.integers(1, positive))
    drawn = refgrad.multinomial(refgrad.tensor(weights), count).tolist()
    assert len(set(drawn)) == count
    drawn += refgrad.multinomial(refgrad.tensor(weights), 20, replacement=True).tolist()
    assert all(weights[i] > 0 for i in drawn)


@pytest.mark.parametrize("draw", [
    lambda T, x: T.bernoulli(x), lambda T, x: T.poisson(x), lambda T, x: T.normal(x, 1.0),
    lambda T, x: T.normal(0.0, x), lambda T, x: T.normal(x, x),
    lambda T, x: (x * 2).normal_(), lambda T, x: (x * 2).uniform_(),
    lambda T, x: (x * 2).bernoulli_(0.5), lambda T, x: (x * 2).exponential_(),
])  # fmt: skip
def test_the_gradient_of_a_draw_is_zero(draw):
    def code(T):
        x = T.full((3,), 0.5, requires_grad=True)
        (draw(T, x) * T.tensor([1.0, 2.0, 3.0])).sum().backward()
        return x.grad

    both(code)


def test_nodes_are_named_as_torchs():
    def code(T):
        x = T.ones(2, requires_grad=True)
        made = [T.bernoulli(x), T.poisson(x), (x * 1).normal_(), (x * 1).log_normal_()]
        return [m.grad_fn.name() for m in made]

    both(code)


def test_a_leaf_that_requires_grad_is_filled_only_without_recording():
    def code(T):
        x = T.zeros(3, requires_grad=True)
        with T.no_grad():
            x.uniform_(1, 2)
        return [x.requires_grad, x.is_leaf, bool((x >= 1).all())]

    both(code)
    both_raise(lambda T: T.zeros(3, requires_grad=True).uniform_(), match="leaf Variable")


def test_a_view_is_filled_in_its_base():
    x = refgrad.zeros(2, 3)
    x[0].uniform_(1, 2)
    assert (x[0].numpy() >= 1).all()
    assert not x[1].numpy().any()


def test_a_state_survives_a_copy():
    own = refgrad.Generator().manual_seed(7)
    refgrad.rand(3, generator=own)
    state = copy.deepcopy(own.get_state())
    drawn = refgrad.rand(3, generator=own).tolist()
    assert refgrad.rand(3, generator=refgrad.Generator().set_state(state)).tolist() == drawn
