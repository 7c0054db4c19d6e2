"""Complex numbers: what PyTorch's own samples do not show."""

from __future__ import annotations

import cmath
from typing import Any

import mpmath
import numpy as np
import pytest

import refgrad
from tests.refgrad.both import both, both_raise

Z = [0.5 + 1.5j, -2.0 - 0.25j, 1.0 + 0j, -1.0 + 0j, 1j, -0.5j, 3.0 - 4.0j]
WITH_ZERO = [*Z, 0j]
AT_ZERO = {  # of what has no derivative at 0 PyTorch gives 0
    "abs": lambda t, z: z.abs(),
    "absolute": lambda t, z: t.absolute(z),
    "sgn": lambda t, z: z.sgn(),
    "angle": lambda t, z: z.angle(),
    "square of abs": lambda t, z: z.abs() ** 2,
    "norm": lambda t, z: t.linalg.vector_norm(z.reshape(2, -1), dim=0),
    "norm of zero": lambda t, z: (z * 0).norm(),
    "1-norm": lambda t, z: t.linalg.vector_norm(z, 1),
    "square": lambda t, z: z**2,
    "to the 0": lambda t, z: z**0,
    "to the 1": lambda t, z: z**1.0,
    "of the base 2": lambda t, z: 2.0**z,
    "of the base 1j": lambda t, z: 1j ** (z + 1),
    "sinc": lambda t, z: t.sinc(z),
    "prod": lambda t, z: z.prod(),
    "cumprod": lambda t, z: z.cumprod(0),
    "masked_fill": lambda t, z: z.masked_fill(z == 0, 2j),
    "where": lambda t, z: t.where(z.abs() > 1, z, z * z),
}


@pytest.mark.parametrize("name", AT_ZERO)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_conventions(name: str, dtype: str) -> None:
    def code(t: Any) -> Any:
        z = t.tensor(WITH_ZERO, dtype=getattr(t, dtype), requires_grad=True)
        out = AT_ZERO[name](t, z)
        seed = (1.25 - 0.5j) if out.is_complex() else 1.25
        out.backward(t.full_like(out, seed))
        return out, z.grad

    both(code)


class TestGradient:
    """`.grad` is df/dx + i df/dy, the direction of steepest ascent of a real f."""

    def test_of_a_real_loss(self) -> None:
        def code(t: Any) -> Any:
            z = t.tensor(Z, requires_grad=True, dtype=t.complex128)
            (z * z.conj()).real.sum().backward()
            return z.grad

        np.testing.assert_allclose(both(code).numpy(), 2 * np.array(Z))

    def test_is_what_differences_give(self) -> None:
        def f(z: complex) -> float:
            return (cmath.exp(z) * z.conjugate() + 1j * z * z).real

        z = refgrad.tensor(0.3 - 0.7j, dtype=refgrad.complex128, requires_grad=True)
        (z.exp() * z.conj() + 1j * z * z).real.backward()
        h, at = 1e-5, 0.3 - 0.7j
        by_x = (f(at + h) - f(at - h)) / (2 * h)
        by_y = (f(at + h * 1j) - f(at - h * 1j)) / (2 * h)
        assert abs(z.grad.item() - complex(by_x, by_y)) < 1e-9

    def test_with_a_complex_cotangent(self) -> None:
        def code(t: Any) -> Any:
            z = t.tensor(Z, requires_grad=True, dtype=t.complex128)
            seed = t.tensor(Z[::-1], dtype=t.complex128)
            (z**3).backward(seed)
            (again,) = t.autograd.grad((z**3).sum(), z, t.tensor(2.0 - 1j, dtype=t.complex128))
            return z.grad, again

        both(code)

    def test_of_a_real_leaf_is_real(self) -> None:
        def code(t: Any) -> Any:
            x = t.tensor([1.0, -2.0], dtype=t.float64, requires_grad=True)
            z = t.tensor([1j, 2.0 - 1j], dtype=t.complex128, requires_grad=True)
            out = x * z + z / x + x**z + (x - 3j) + t.complex(x, x * x) + t.polar(x.abs(), x)
            out.backward(t.tensor([1.0 - 1j, 0.5 + 2j], dtype=t.complex128))
            return out, x.grad, z.grad, x.grad.dtype

        both(code)

    @pytest.mark.parametrize(
        "name", ["where", "dist", "logaddexp", "ldexp", "cat", "stack", "matmul", "addcmul"]
    )
    def test_of_a_real_leaf_where_torch_fails_in_part(self, name: str) -> None:
        """PyTorch's backward of some of these refuses operands of which one is real (2.13)."""
        functions = {
            "where": lambda t, x, z: t.where(t.tensor([True, False]), x, z),
            "dist": lambda t, x, z: t.dist(x, z),
            "logaddexp": lambda t, x, z: t.logaddexp(x, z),
            "ldexp": lambda t, x, z: t.ldexp(z, x),
            "cat": lambda t, x, z: t.cat([x, z]),
            "stack": lambda t, x, z: t.stack([x, z]),
            "matmul": lambda t, x, z: t.matmul(x.to(z.dtype), z),
            "addcmul": lambda t, x, z: t.addcmul(z, x, z),
        }

        def gradients(x: Any, z: Any) -> Any:
            out = functions[name](refgrad, x, z)
            seed = refgrad.full_like(out, 1.5 - 0.5j if out.is_complex() else 1.5)
            return out, *refgrad.autograd.grad(out, (x, z), seed)

        x = refgrad.tensor([1.0, -2.0], dtype=refgrad.float64, requires_grad=True)
        z = refgrad.tensor([1j, 2.0 - 1j], dtype=refgrad.complex128, requires_grad=True)
        wide = x.detach().to(z.dtype).requires_grad_()
        ours, expected = gradients(x, z), gradients(wide, z)
        np.testing.assert_allclose(ours[0].detach().numpy(), expected[0].detach().numpy())
        np.testing.assert_allclose(ours[1].numpy(), expected[1].numpy().real)
        np.testing.assert_allclose(ours[2].numpy(), expected[2].numpy())

    def test_accumulates_and_is_retained(self) -> None:
        def code(t: Any) -> Any:
            z = t.tensor(Z, requires_grad=True, dtype=t.complex128)
            w = z * (2 - 1j)
            w.retain_grad()
            w.real.sum().backward()
            first = z.grad.clone()
            (z * 1j).imag.sum().backward()
            return first, z.grad, w.grad, w.is_complex()

        both(code)

    def test_hooks_see_it(self) -> None:
        def code(t: Any) -> Any:
            seen = []
            z = t.tensor(Z, requires_grad=True, dtype=t.complex128)
            w = z * (2 - 1j)
            z.register_hook(lambda g: seen.append(g.clone()))
            w.register_hook(lambda g: seen.append(g.clone()) or g * 1j)
            (w * w.conj() * 1j + w).imag.sum().backward()
            return seen, z.grad

        both(code)

    def test_custom_function_sees_it(self) -> None:
        def code(t: Any) -> Any:
            class Square(t.autograd.Function):  # type: ignore[name-defined, misc]
                @staticmethod
                def forward(ctx: Any, z: Any) -> Any:
                    ctx.save_for_backward(z)
                    return z * z

                @staticmethod
                def backward(ctx: Any, g: Any) -> Any:
                    (z,) = ctx.saved_tensors
                    return g * (2 * z).conj()

            z = t.tensor(Z, requires_grad=True, dtype=t.complex128)
            (Square.apply(z) * (1 + 2j)).real.sum().backward()
            return z.grad

        both(code)

    def test_higher_orders(self) -> None:
        def code(t: Any) -> Any:
            z = t.tensor(Z, requires_grad=True, dtype=t.complex128)
            v = t.tensor(Z[::-1], dtype=t.complex128)
            found = []
            out = ((z.exp() * z.conj()).real + (z**3).imag * z.abs()).sum()
            for _ in range(3):
                (g,) = t.autograd.grad(out, z, create_graph=True)
                found.append(g)
                out = (g * v.conj()).real.sum()
            return found

        both(code)

    def test_through_linear_algebra(self) -> None:
        def code(t: Any) -> Any:
            k = t.arange(9, dtype=t.float64).reshape(3, 3)
            a = t.complex(t.sin(k), t.cos(2 * k)).requires_grad_()
            h = a @ a.mH + 3 * t.eye(3, dtype=t.complex128)
            out = (
                t.linalg.eigvalsh(h).log().sum()
                + t.linalg.solve(h, a).real.sum()
                + t.linalg.det(a + 2).abs()
                + t.linalg.inv(h).imag.square().sum()
                + t.fft.fft(a).abs().sum()
                + t.einsum("ij,kj->ik", a, a.conj()).real.sum()
            )
            (g,) = t.autograd.grad(out, a, create_graph=True)
            (second,) = t.autograd.grad(g.abs().square().sum(), a)
            return out, g, second

        both(code)


class TestParts:
    def test_views_that_are_written(self) -> None:
        def code(t: Any) -> Any:
            z = t.tensor(Z, requires_grad=True, dtype=t.complex128)
            w = z * 1
            w.real.mul_(2)
            w.imag[1:3] = 7.0
            t.view_as_real(w)[-1, 1].add_(w.real[0])
            (w * w.conj() * (1 + 1j)).imag.sum().backward()
            return w, z.grad, w.real, w.imag

        both(code)

    def test_real_views_as_complex(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(6.0, dtype=t.float64).reshape(3, 2).requires_grad_()
            y = x * 1
            z = t.view_as_complex(y)
            z.mul_(1 - 2j)
            z[0] = 3j
            (z.abs().square().sum() + y[1, 0]).backward()
            return y, z, x.grad, z.shape

        both(code)

    def test_assigned(self) -> None:
        def code(t: Any) -> Any:
            z = t.zeros(3, dtype=t.complex64)
            z.real = t.tensor([1.0, 2.0, 3.0])
            z.imag = t.ones(3)
            return z

        both(code)

    def test_of_a_real_tensor(self) -> None:
        def code(t: Any) -> Any:
            x = t.tensor([1.0, -2.0], requires_grad=True)
            same = (x.real is x, x.conj() is x, t.real(x) is x, x.resolve_conj() is x)
            out = x.real.sum() + x.conj().sum() + x.angle().sum() + x.conj_physical().sum()
            out.backward()
            return same, out, x.grad, x.is_conj()

        both(code)

    def test_errors(self) -> None:
        both_raise(lambda t: t.ones(2).imag, match="imag is not implemented")
        both_raise(lambda t: t.view_as_real(t.ones(2)), match="only supported for complex")
        both_raise(lambda t: t.view_as_complex(t.ones(3)), match="size 2")
        both_raise(lambda t: t.view_as_complex(t.ones(2, 2).t()), match="stride 1")
        both_raise(lambda t: t.complex(t.ones(2), t.ones(2).double()), match="Expected")

    def test_conjugates_compose(self) -> None:
        def code(t: Any) -> Any:
            z = t.tensor([Z[:3], Z[3:6]], requires_grad=True, dtype=t.complex128)
            out = z.conj().mT @ z.resolve_conj() + z.H @ z.conj().conj() * 1j + z.adjoint().sum()
            out.backward(t.full_like(out, 1 - 1j))
            return out.resolve_conj(), z.grad.resolve_conj()

        both(code)


class TestErrors:
    def test_a_complex_loss_needs_a_cotangent(self) -> None:
        def code(t: Any) -> None:
            t.tensor(1j, requires_grad=True).exp().backward()

        both_raise(code, match="only for real scalar outputs")

    def test_a_complex_cotangent_of_a_real_output(self) -> None:
        def code(t: Any) -> None:
            x = t.ones(2, dtype=t.float64, requires_grad=True)
            (x * x).backward(t.ones(2, dtype=t.complex128))

        both_raise(code, match="same dtype|Mismatch")

    @pytest.mark.parametrize(
        "name",
        ["max", "min", "sort", "argmax", "relu", "floor", "ceil", "round", "trunc", "sign",
         "clamp_min", "lgamma", "erfinv", "median", "cummax", "frac", "atan2", "fmod", "remainder",
         "maximum", "hypot", "lt", "ge", "floor_divide", "logit", "i0", "heaviside", "bitwise_not"],
    )  # fmt: skip
    def test_what_orders_or_is_not_analytic_is_refused(self, name: str) -> None:
        def code(t: Any) -> Any:
            z = t.tensor(Z, dtype=t.complex128)
            binary = ("atan2", "fmod", "remainder", "maximum", "hypot", "lt", "ge", "floor_divide",
                      "heaviside")  # fmt: skip
            function = getattr(t, name)
            if name in ("cummax", "clamp_min"):
                return function(z, 0)
            return function(z, z) if name in binary else function(z)

        both_raise(code, match=".")


class TestAccuracy:
    """At points where PyTorch 2.13 gives nan, zero or lost digits."""

    @pytest.mark.parametrize("z", [1e-8, 1e-8j, 1e-200 + 1e-200j, -1e-12 + 1e-9j, 0.3 - 0.2j])
    def test_log1p(self, z: complex) -> None:
        with mpmath.workdps(450):
            exact = complex(mpmath.log(1 + mpmath.mpmathify(z)))
        found = refgrad.log1p(refgrad.tensor(z, dtype=refgrad.complex128)).item()
        assert abs(found - exact) <= 4e-16 * abs(exact)

    @pytest.mark.parametrize("z", [1e-200 + 0j, 1e-160 + 1e-160j, -3e-170j])
    def test_angle_near_zero(self, z: complex) -> None:
        x = refgrad.tensor(z, dtype=refgrad.complex128, requires_grad=True)
        x.angle().backward()
        exact = complex(1j * mpmath.mpmathify(z) / abs(mpmath.mpmathify(z)) ** 2)
        assert abs(x.grad.item() - exact) <= 1e-14 * abs(exact)

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    @pytest.mark.parametrize("name", ["acosh", "log", "sqrt", "log1p"])
    def test_both_sides_of_a_cut(self, name: str, sign: float) -> None:
        def derivative(z: complex) -> complex:
            x = refgrad.tensor(z, dtype=refgrad.complex128, requires_grad=True)
            out = getattr(refgrad, name)(x)
            out.backward(refgrad.ones_like(out))
            return complex(x.grad.item())

        on, beside = complex(-2.0, 0.0 * sign), complex(-2.0, 1e-14 * sign)
        assert abs(derivative(on) - derivative(beside)) < 1e-12

    def test_sinc_near_zero(self) -> None:
        z = refgrad.tensor([1e-8, 1e-8j], dtype=refgrad.complex128, requires_grad=True)
        refgrad.sinc(z).backward(refgrad.ones(2, dtype=refgrad.complex128))
        exact = -(np.pi**2) / 3 * np.conj(z.detach().numpy())
        np.testing.assert_allclose(z.grad.numpy(), exact, rtol=1e-12)

    def test_powers_of_zero(self) -> None:
        z = refgrad.tensor([0j, 0j], dtype=refgrad.complex128, requires_grad=True)
        (z ** refgrad.tensor([1.0 + 0j, 2.0 + 0j])).sum().real.backward()
        np.testing.assert_array_equal(z.grad.numpy(), [1.0, 0.0])
