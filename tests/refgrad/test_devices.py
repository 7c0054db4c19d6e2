"""Tensors on a device: making, moving, mixing, and autograd there.

Each test runs on the stand-in for CuPy's arrays and, marked `cuda`, on CuPy where a GPU is; that
there is none `test_cuda.py` says.
"""

from __future__ import annotations

import operator as operators
from collections.abc import Iterator

import numpy as np
import pytest

import refgrad
from refgrad.libraries import Loaded
from tests.fakes.device_array import stand_in
from tests.refgrad.gpu import MISSING


@pytest.fixture(
    autouse=True,
    params=["stand-in", *([] if MISSING else [pytest.param("cupy", marks=pytest.mark.cuda)])],
)
def library(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "cupy":
        yield
        return
    with stand_in():
        yield


def values(t: refgrad.Tensor) -> np.ndarray:
    return t.detach().cpu().numpy()


MAKERS = {
    "tensor": lambda **o: refgrad.tensor([1.0, 2.0], **o),
    "as_tensor": lambda **o: refgrad.as_tensor([1.0, 2.0], **o),
    "asarray": lambda **o: refgrad.asarray([1.0, 2.0], **o),
    "zeros": lambda **o: refgrad.zeros(2, 3, **o),
    "ones": lambda **o: refgrad.ones(2, 3, **o),
    "full": lambda **o: refgrad.full((2,), 7.0, **o),
    "arange": lambda **o: refgrad.arange(5, **o),
    "linspace": lambda **o: refgrad.linspace(0, 1, 5, **o),
    "logspace": lambda **o: refgrad.logspace(0, 1, 5, **o),
    "eye": lambda **o: refgrad.eye(3, **o),
    "scalar_tensor": lambda **o: refgrad.scalar_tensor(3.0, **o),
    "tril_indices": lambda **o: refgrad.tril_indices(3, 3, **o),
    "triu_indices": lambda **o: refgrad.triu_indices(3, 3, **o),
    "zeros_like": lambda **o: refgrad.zeros_like(refgrad.ones(2, 3), **o),
    "ones_like": lambda **o: refgrad.ones_like(refgrad.ones(2, 3), **o),
    "full_like": lambda **o: refgrad.full_like(refgrad.ones(2, 3), 2.0, **o),
    "fftfreq": lambda **o: refgrad.fft.fftfreq(5, **o),
    "rand": lambda **o: refgrad.rand(3, generator=refgrad.Generator().manual_seed(1), **o),
    "randn": lambda **o: refgrad.randn(3, generator=refgrad.Generator().manual_seed(1), **o),
    "randint": lambda **o: refgrad.randint(
        9, (3,), generator=refgrad.Generator().manual_seed(1), **o
    ),
    "randperm": lambda **o: refgrad.randperm(9, generator=refgrad.Generator().manual_seed(1), **o),
    "normal": lambda **o: refgrad.normal(
        0.0, 1.0, (3,), generator=refgrad.Generator().manual_seed(1), **o
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_on_a_device_is_what_is_made_on_the_cpu(name: str) -> None:
    here, there = MAKERS[name](), MAKERS[name](device="cuda")
    assert here.device == refgrad.device("cpu")
    assert there.device == refgrad.device("cuda:0")
    assert there.is_cuda
    assert not there.is_cpu
    assert there.dtype is here.dtype
    assert there.stride() == here.stride()
    np.testing.assert_array_equal(values(there), values(here))


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"zeros_like", "ones_like", "full_like"}))
def test_a_device_is_a_context_for_what_names_none(name: str) -> None:
    with refgrad.device("cuda"):
        assert MAKERS[name]().is_cuda
        assert MAKERS[name](device="cpu").is_cpu
    assert MAKERS[name]().is_cpu


def test_what_is_made_like_a_tensor_lives_where_it_does() -> None:
    x = refgrad.ones(2, 3, device="cuda")
    for made in (
        refgrad.zeros_like(x),
        refgrad.ones_like(x),
        refgrad.full_like(x, 2.0),
        refgrad.empty_like(x),
        refgrad.rand_like(x),
        refgrad.randn_like(x),
        refgrad.randint_like(x, 5),
        x.new_zeros(4),
        x.new_ones(4),
        x.new_full((2,), 1.0),
        x.new_empty(3),
        x.new_tensor([1.0]),
        x.clone(),
        x.detach(),
        refgrad.bernoulli(x * 0.5),
        refgrad.poisson(x),
        refgrad.multinomial(x, 2),
        refgrad.normal(x),
    ):
        assert made.is_cuda
    assert refgrad.zeros_like(x, device="cpu").is_cpu
    with refgrad.device("cuda"):
        assert refgrad.zeros_like(refgrad.ones(2, device="cpu")).is_cpu


def test_to_moves_and_keeps_what_is_there() -> None:
    x = refgrad.arange(6.0).reshape(2, 3).t()
    there = x.to("cuda")
    assert there.is_cuda
    assert there.stride() == x.stride()
    assert there.to("cuda") is there
    assert there.cuda() is there
    assert there.cpu().stride() == x.stride()
    assert x.cpu() is x
    assert x.cuda().is_cuda
    both = x.to("cuda", refgrad.float64)
    assert both.is_cuda
    assert both.dtype is refgrad.float64
    assert x.to(both).is_cuda
    assert there.to(device="cpu", dtype=refgrad.int64).dtype is refgrad.int64
    assert there.get_device() == 0
    assert x.get_device() == -1
    np.testing.assert_array_equal(values(there), x.numpy())


def test_a_copy_between_devices_is_differentiable() -> None:
    x = refgrad.tensor([1.0, 2.0], requires_grad=True)
    y = x.cuda()
    assert y.grad_fn.name() == "ToCopyBackward0"
    (y * y).sum().cpu().backward()
    assert x.grad.is_cpu
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 4.0])
    (g,) = refgrad.autograd.grad((x.cuda() ** 3).sum(), x, create_graph=True)
    (h,) = refgrad.autograd.grad(g.sum(), x)
    np.testing.assert_allclose(h.numpy(), [6.0, 12.0])


def test_numpy_of_a_device_tensor_raises_as_torchs() -> None:
    x = refgrad.ones(2, device="cuda")
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        x.numpy()
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        np.asarray(x)
    np.testing.assert_array_equal(x.numpy(force=True), [1, 1])
    assert x.tolist() == [1.0, 1.0]
    assert x[0].item() == 1.0
    assert float(x.sum()) == 2.0
    assert bool(x[0] > 0)
    assert repr(x) == "tensor([1., 1.], device='cuda:0')"


def test_devices_do_not_mix() -> None:
    here, there = refgrad.ones(2), refgrad.ones(2, device="cuda")
    for call in (
        lambda: here + there,
        lambda: refgrad.mul(there, here),
        lambda: refgrad.cat([here, there]),
        lambda: there @ here,
        lambda: refgrad.where(there > 0, here, there),
        lambda: there.gather(0, refgrad.tensor([0])),
    ):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            call()
    with pytest.raises(RuntimeError, match="on the same device as the indexed tensor"):
        here[refgrad.tensor([0], device="cuda")]
    x = refgrad.ones(2, device="cuda", requires_grad=True)
    with pytest.raises(RuntimeError, match="device type 'cpu' to a tensor with device type 'cuda'"):
        x.grad = refgrad.ones(2)


def test_numbers_and_host_indices_mix() -> None:
    x = refgrad.tensor([1.0, 2.0, 3.0], device="cuda", requires_grad=True)
    s = refgrad.tensor(2.0, requires_grad=True)
    y = x * s + 1
    assert y.is_cuda
    y[refgrad.tensor([0, 2])].sum().backward()
    assert x.grad.is_cuda
    assert s.grad.is_cpu
    np.testing.assert_array_equal(values(x.grad), [2, 0, 2])
    assert s.grad.item() == 4.0
    assert x.detach()[[0, 1]].tolist() == [1.0, 2.0]


def test_gradients_live_where_their_tensors_do() -> None:
    w = refgrad.linspace(0.1, 0.9, 6, dtype=refgrad.float64, device="cuda").reshape(2, 3)
    w = w.detach().requires_grad_()
    x = refgrad.ones(3, 2, dtype=refgrad.float64, device="cuda", requires_grad=True)
    for _ in range(3):
        (w @ x).tanh().sum().backward()
    assert w.grad.is_cuda
    assert x.grad.is_cuda
    host = w.detach().cpu().requires_grad_()
    (host @ refgrad.ones(3, 2, dtype=refgrad.float64)).tanh().sum().backward()
    np.testing.assert_allclose(values(w.grad), 3 * host.grad.numpy(), rtol=1e-12)


def test_create_graph_stays_on_the_device() -> None:
    x = refgrad.tensor([0.3, 0.7], dtype=refgrad.float64, device="cuda", requires_grad=True)
    (g,) = refgrad.autograd.grad(x.exp().sum(), x, create_graph=True)
    assert g.is_cuda
    (h,) = refgrad.autograd.grad((g * g).sum(), x)
    np.testing.assert_allclose(values(h), 2 * np.exp(2 * np.array([0.3, 0.7])))


def test_hooks_see_device_tensors() -> None:
    x = refgrad.ones(3, device="cuda", requires_grad=True)
    seen = []
    y = x * 2
    x.register_hook(lambda g: seen.append(g.device))
    y.register_hook(lambda g: g * 10)
    y.retain_grad()
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.device))
    y.sum().backward()
    assert [str(d) for d in seen] == ["cuda:0", "cuda:0"]
    assert values(x.grad).tolist() == [20.0] * 3
    assert values(y.grad).tolist() == [10.0] * 3


def test_views_share_memory_and_history() -> None:
    base = refgrad.zeros(3, 4, device="cuda")
    x = refgrad.ones(4, device="cuda", requires_grad=True)
    base[1] = x * 3
    row, flat = base[1], base.view(-1)
    assert row._base is base
    assert flat.data_ptr() == base.data_ptr()
    row.mul_(2)
    assert base.requires_grad
    base.sum().backward()
    assert values(x.grad).tolist() == [6.0] * 4
    assert base.t()._base is base
    assert base.expand(2, 3, 4)._base is base
    assert base.detach().data_ptr() == base.data_ptr()
    assert base.reshape(4, 3).data_ptr() == base.data_ptr()
    assert base.t().reshape(-1)._base is None
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        base.t().view(-1)


def test_a_saved_tensor_that_was_written_is_noticed() -> None:
    x = refgrad.ones(2, device="cuda", requires_grad=True)
    y = x.exp()
    z = (y * y).sum()
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_in_place_ops_write_to_the_device() -> None:
    x = refgrad.arange(4.0, device="cuda")
    alias = x.view(2, 2)
    x.add_(1).clamp_(max=3)
    x[0] = 7
    x[refgrad.tensor([1, 2], device="cuda")] = refgrad.tensor(0.0)
    assert alias.tolist() == [[7.0, 0.0], [0.0, 3.0]]
    x.copy_(refgrad.ones(4))
    assert x.tolist() == [1.0] * 4


def test_a_parameter_can_be_trained_there() -> None:
    refgrad.manual_seed(0)
    x = refgrad.randn(32, 3, device="cuda")
    y = x @ refgrad.tensor([[1.0], [-2.0], [0.5]], device="cuda")
    w = refgrad.zeros(3, 1, device="cuda", requires_grad=True)
    for _ in range(200):
        loss = refgrad.nn.functional.mse_loss(x @ w, y)
        loss.backward()
        with refgrad.no_grad():
            w -= 0.2 * w.grad
        w.grad = None
    np.testing.assert_allclose(values(w)[:, 0], [1.0, -2.0, 0.5], atol=1e-3)


def test_forward_mode_and_func_run_there() -> None:
    fwd = refgrad.autograd.forward_ad
    x = refgrad.tensor([0.5, 1.5], dtype=refgrad.float64, device="cuda")
    with fwd.dual_level():
        dual = fwd.make_dual(x, refgrad.ones_like(x))
        tangent = fwd.unpack_dual(dual.sin()).tangent
    assert tangent.is_cuda
    np.testing.assert_allclose(values(tangent), np.cos([0.5, 1.5]))
    jac = refgrad.func.jacrev(lambda t: t * t)(x)
    assert jac.is_cuda
    np.testing.assert_allclose(values(jac), [[1.0, 0.0], [0.0, 3.0]])
    hess = refgrad.autograd.functional.hessian(lambda t: (t**3).sum(), x)
    np.testing.assert_allclose(values(hess), [[3.0, 0.0], [0.0, 9.0]])


def test_what_linear_algebra_refuses_is_refused_there() -> None:
    singular = refgrad.zeros(2, 2, dtype=refgrad.float64, device="cuda")
    for call in (
        lambda: refgrad.linalg.inv(singular),
        lambda: refgrad.linalg.solve(singular, singular),
        lambda: refgrad.linalg.cholesky(singular - 1),
    ):
        with pytest.raises(refgrad.linalg.LinAlgError):
            call()
    info = refgrad.linalg.inv_ex(singular).info
    assert info.is_cuda
    assert info.item() == 1


def test_the_namespace_of_cuda() -> None:
    assert refgrad.cuda.is_available()
    assert refgrad.cuda.device_count() >= 1
    assert refgrad.cuda.current_device() == 0
    start, end = (refgrad.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    refgrad.ones(1000, device="cuda").exp()
    end.record()
    end.synchronize()
    refgrad.cuda.synchronize()
    assert end.query()
    assert start.elapsed_time(end) >= 0
    with pytest.raises(ValueError, match="enable_timing"):
        start.elapsed_time(refgrad.cuda.Event())
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        refgrad.zeros(2, device="cuda:99")
    with pytest.raises(RuntimeError, match="'cpu' and 'cuda'"):
        refgrad.zeros(2, device="mps")
    refgrad.cuda.set_device(0)
    refgrad.cuda.empty_cache()


def test_the_library_is_loaded_once_a_device_is_used() -> None:
    refgrad.zeros(1, device="cuda")
    assert Loaded.cuda is not None


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow", "matmul"])
def test_an_operator_takes_an_array_of_the_device_on_either_side(name: str) -> None:
    operator = getattr(operators, name)
    x, y = (np.arange(1.0, 5.0).reshape(2, 2) * k for k in (1, 2))
    for sides in ([0], [1], [0, 1]):
        given = [refgrad.from_numpy(a).to("cuda") for a in (x, y)]
        tensors = [given[i].requires_grad_() for i in sides]
        operands = [t if i in sides else t._array for i, t in enumerate(given)]
        made = operator(*operands)
        np.testing.assert_allclose(values(made), operator(x, y), rtol=1e-12)
        assert all(g.is_cuda for g in refgrad.autograd.grad(made.sum(), tensors))


def test_a_zero_on_the_diagonal_of_a_triangle_gives_inf_there_too() -> None:
    triangle = refgrad.tensor([[0.0, 0.0], [1.0, 2.0]], device="cuda")
    ones = refgrad.ones(2, 1, device="cuda")
    made = values(refgrad.linalg.solve_triangular(triangle, ones, upper=False))
    assert made[0, 0] == np.inf
    several = refgrad.eye(2, device="cuda").expand(3, 2, 2)
    made = values(refgrad.linalg.solve_triangular(several, ones, upper=True))
    np.testing.assert_array_equal(made, np.ones((3, 2, 1)))
    empty = refgrad.linalg.solve_triangular(several[:0], ones, upper=True)
    assert empty.is_cuda
    assert tuple(empty.shape) == (0, 2, 1)
