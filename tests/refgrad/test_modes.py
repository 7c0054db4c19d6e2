"""Grad modes and anomaly mode."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.refgrad.both import both, both_raise, leaf


class TestModes:
    def test_no_grad_records_nothing(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            with t.no_grad():
                a = x * 2
                with t.enable_grad():
                    b = x * 2
            c = x * 2
            return a.requires_grad, b.requires_grad, c.requires_grad

        both(code)

    def test_as_decorator_and_call(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)

            @t.no_grad()
            def f() -> Any:
                return x * 2

            t.set_grad_enabled(False)
            a = x * 2
            t.set_grad_enabled(True)
            with t.set_grad_enabled(False):
                b = x * 2
            return f().requires_grad, a.requires_grad, b.requires_grad, t.is_grad_enabled()

        both(code)

    def test_as_decorators_without_a_call(self) -> None:
        def code(t: Any) -> Any:
            def f() -> Any:
                return t.is_grad_enabled(), t.is_inference_mode_enabled()

            with t.no_grad():
                inner = t.enable_grad(f)()
            return t.no_grad(f)(), t.inference_mode(f)(), inner, t.set_grad_enabled(False)(f)(), f()

        both(code)

    def test_a_decorated_recursion_and_an_exception(self) -> None:
        def code(t: Any) -> Any:
            @t.no_grad()
            def f(n: int) -> Any:
                if n == 0:
                    raise ValueError
                with t.enable_grad():
                    return f(n - 1)

            with pytest.raises(ValueError):
                f(3)
            return t.is_grad_enabled()

        both(code)

    def test_generators_run_in_their_mode_and_their_callers_in_theirs(self) -> None:
        def code(t: Any) -> Any:
            seen = []

            @t.no_grad()
            def f() -> Any:
                try:
                    got = yield t.is_grad_enabled()
                    try:
                        yield got, t.is_grad_enabled()
                    except ValueError:
                        yield "caught", t.is_grad_enabled()
                    return t.is_grad_enabled()
                finally:
                    seen.append(t.is_grad_enabled())

            one, two = f(), f()
            seen += [next(one), t.is_grad_enabled(), one.send(5), one.throw(ValueError())]
            with pytest.raises(StopIteration) as end:
                next(one)
            next(two)
            two.close()
            return seen, end.value.value, t.is_grad_enabled()

        both(code)

    def test_threads_have_modes_of_their_own(self) -> None:
        def code(t: Any) -> Any:
            seen = []
            with t.no_grad():
                thread = threading.Thread(target=lambda: seen.append(t.is_grad_enabled()))
                thread.start()
                thread.join()
            return seen

        both(code)

    def test_inference_mode_is_not_undone_by_enable_grad(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)

            def now() -> Any:
                y = x * 2
                return t.is_grad_enabled(), t.is_inference_mode_enabled(), y.requires_grad

            with t.inference_mode():
                found = [now()]
                with t.enable_grad():
                    found.append(now())
                with t.inference_mode(False):
                    found.append(now())
            with t.no_grad(), t.inference_mode(False):
                found.append(now())
            return [*found, now()]

        both(code)

    def test_a_decorated_class_warns(self) -> None:
        def code(t: Any) -> Any:
            with pytest.warns(FutureWarning, match="Decorating classes is deprecated"):

                @t.no_grad()
                class Made:
                    def __init__(self) -> None:
                        self.enabled = t.is_grad_enabled()

            return Made().enabled

        both(code)


class TestAnomalyMode:
    def test_names_the_node_that_made_a_nan(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, -1.0)
            with t.autograd.set_detect_anomaly(True):
                (x.sqrt() * 1).sum().backward()

        both_raise(code, match="Function 'SqrtBackward0' returned nan values in its 0th output")

    def test_changes_nothing_else(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 1.0, 2.0), leaf(t, 3.0, 4.0)
            with t.autograd.set_detect_anomaly(True):
                on = t.is_anomaly_enabled(), t.is_anomaly_check_nan_enabled()
                (g,) = t.autograd.grad((x.exp() * y).sum(), x, create_graph=True)
                a, b = (g * g).split(1)
                (a * b).backward()
            with pytest.warns(match="Anomaly"), t.autograd.detect_anomaly(check_nan=False):
                leaf(t, -1.0).sqrt().backward()
            return x.grad, y.grad, on, t.is_anomaly_enabled()

        both(code)
