"""Tensor: an array, and how it was made.

Its methods are the ops (`refgrad.ops`), attached when the package is imported; here stands what is
not an op: reading, converting, the autograd surface, in-place writes and NumPy's protocols.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import refgrad
from refgrad import dtypes
from refgrad.description import Described
from refgrad.graph import AccumulateGrad, Output, Writes, clock
from refgrad.levels import Levels
from refgrad.libraries import Loaded, on_device, to_host, writeable
from refgrad.mode import state

NON_LEAF_GRAD = (
    "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad "
    "attribute won't be populated during autograd.backward(). If you indeed want the .grad field "
    "to be populated for a non-leaf Tensor, use .retain_grad() on the non-leaf Tensor."
)
_new = object.__new__
UFUNCS: dict[Any, Callable[..., Any]] = {}  # NumPy's ufuncs, for rules that run on Tensors
FUNCTIONS: dict[Any, Callable[..., Any]] = {}  # and its functions, by __array_function__

LEAF_WRITE = "a leaf Variable that requires grad is being used in an in-place operation."


class Tensor(Described):
    """A multi-dimensional array that knows how to give gradients.

    `Tensor(data)` is PyTorch's legacy constructor: float32 from a list or array, or an
    uninitialised tensor of the sizes given. `refgrad.tensor` is the one to use.
    """

    # every tensor has these of its own: CPython 3.11 is 30 ns slower for what has a default
    _array: Any
    _node: Any  # the node that made it; None for a leaf
    _requires_grad: bool

    _grad: Any = None
    _base: Any = None  # the tensor that it is a view of
    _written = 0  # when its memory was last written in place
    _rebased = 0  # when that write was recorded, so that views have another history since
    _turned = 0  # when it was last given another geometry in place
    _writes = 0
    _watched = False  # whether it ever had one of the following
    _hooks: Any = None
    _post_hooks: Any = None
    _accumulator_hooks: Any = None
    _retained: Any = None  # the handle of what keeps its gradient
    _tangents: Any = None  # of forward mode, by level

    if TYPE_CHECKING:  # the ops, attached by refgrad.ops

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, *data: Any) -> None:
        self._node, self._requires_grad = None, False
        if len(data) == 1 and not isinstance(data[0], int):
            source = data[0]._array if isinstance(data[0], Tensor) else data[0]
            self._array = np.array(source, dtype=dtypes.get_default_dtype().numpy)
        else:
            self._array = np.empty(data, dtype=dtypes.get_default_dtype().numpy)

    __hash__ = object.__hash__

    # --- what it is ------------------------------------------------------------------------------

    def __len__(self) -> int:
        if self._array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return len(self._array)

    def __iter__(self) -> Iterator[Tensor]:
        if self._array.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __contains__(self, value: Any) -> bool:
        return bool((self._array == (value._array if isinstance(value, Tensor) else value)).any())

    @property
    def T(self) -> Tensor:
        """All dimensions in reverse order."""
        made: Tensor = self.permute(tuple(reversed(range(self._array.ndim))))
        return made

    @property
    def mT(self) -> Tensor:
        """The last two dimensions swapped.

        Raises:
            RuntimeError: it has fewer than two.
        """
        if self._array.ndim < 2:
            raise RuntimeError(
                "tensor.mT is only supported on matrices or batches of matrices. "
                f"Got {self._array.ndim}-D tensor."
            )
        made: Tensor = self.transpose(-2, -1)
        return made

    @property
    def H(self) -> Tensor:
        """The conjugate transpose of a matrix."""
        return self.mH

    @property
    def mH(self) -> Tensor:
        """The conjugate transpose of the last two dimensions."""
        made: Tensor = self.adjoint()
        return made

    # --- reading ---------------------------------------------------------------------------------

    def item(self) -> Any:
        """Its only element as a Python number.

        Raises:
            RuntimeError: it has more or fewer than one.
        """
        if self._array.size != 1:
            raise RuntimeError(
                f"a Tensor with {self._array.size} elements cannot be converted to Scalar"
            )
        return self._array.item()

    def tolist(self) -> Any:
        """Its elements as nested lists of Python numbers."""
        return self._array.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Its array, with shared memory.

        Raises:
            RuntimeError: it requires grad and `force` is not given.
            TypeError: it lives on another device and `force` is not given.
        """
        if self._requires_grad and not force:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. "
                "Use tensor.detach().numpy() instead."
            )
        if Loaded.cuda is None or not on_device(self._array):
            return self._array
        if not force:
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. "
                "Use Tensor.cpu() to copy the tensor to host memory first."
            )
        return to_host(self._array)

    def __bool__(self) -> bool:
        if self._array.size > 1:
            raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
        if self._array.size == 0:
            raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
        return bool(self._array)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self._array.size != 1 or self._array.dtype.kind not in "iub":
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return operator.index(self._array.item())

    def __repr__(self) -> str:
        from refgrad import printing
        from refgrad.ops.forward import tangents

        newest = list((tangents(self) or {}).values())[-1:]
        return printing.format(
            to_host(self._array),
            self.dtype,
            device=self.device,
            requires_grad=self._requires_grad,
            grad_fn_name=None if self._node is None else self.grad_fn.name(),
            tangent=format(newest[0]) if newest else None,
        )

    def __format__(self, spec: str) -> str:
        if self._array.ndim == 0:
            return format(self._array.item(), spec)
        return object.__format__(self, spec)

    # --- autograd --------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` of a leaf, and return it.

        Raises:
            RuntimeError: it is no leaf, or its dtype is neither floating nor complex.
        """
        if self._node is not None and not requires_grad:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a "
                "computed variable in a subgraph that doesn't require differentiation use "
                "var_no_grad = var.detach()."
            )
        if requires_grad and self._array.dtype.kind not in "fc":
            raise RuntimeError("only Tensors of floating point dtype can require gradients")
        self._requires_grad = bool(requires_grad)
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made it."""
        return self._node is None

    @property
    def grad_fn(self) -> Any:
        """The node that made it, or None."""
        return self._node.parent if isinstance(self._node, Output) else self._node

    @property
    def grad(self) -> Any:
        """Its accumulated gradient: df/dx, for complex values df/dx + i df/dy; or None.

        Warns:
            UserWarning: it is no leaf and was not told to `retain_grad`.
        """
        if self._grad is None and self._retained is None and self._node is not None:
            warnings.warn(NON_LEAF_GRAD, UserWarning, stacklevel=2)
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    "assigned grad expected to be a Tensor or None but got grad of type "
                    f"{type(value).__name__}"
                )
            if value is self:
                raise RuntimeError("can't assign Variable as its own grad")
            if value._array.dtype != self._array.dtype:
                raise RuntimeError(
                    f"attempting to assign a gradient with dtype '{value.dtype!r}' to a tensor "
                    f"with grad_dtype '{self.dtype!r}'. The gradient must have the tensor's dtype."
                )
            if value.device != self.device:
                raise RuntimeError(
                    f"attempting to assign a gradient with device type '{value.device.type}' to a "
                    f"tensor with device type '{self.device.type}'. Please ensure that the "
                    "gradient and the tensor are on the same device"
                )
            if value._array.shape != self._array.shape:
                raise RuntimeError(
                    f"attempting to assign a gradient of size '{list(value.shape)}' to a tensor "
                    f"of size '{list(self.shape)}'. Please ensure that the gradient and the tensor "
                    "are the same size"
                )
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf it was made from.

        `gradient`, of this tensor's shape, is the cotangent; it may be left out for one element.

        Raises:
            RuntimeError: nothing requires grad, the graph was freed, a saved tensor was written.
        """
        refgrad.autograd.backward(self, gradient, retain_graph, create_graph, None, inputs)

    def grad_accumulator(self) -> AccumulateGrad:
        """The node that PyTorch shows for a leaf."""
        return AccumulateGrad(self)

    def detach(self) -> Tensor:
        """The same memory, cut from the graph."""
        made = wrap(self._array)
        made._base = self if self._base is None else self._base
        return made

    def detach_(self) -> Tensor:
        """Cut it from the graph in place.

        Raises:
            RuntimeError: it is a view.
        """
        if self._base is not None and self._requires_grad:
            raise RuntimeError("Can't detach views in-place. Use detach() instead.")
        self._node, self._requires_grad = None, False
        return self

    @property
    def data(self) -> Tensor:
        """The same memory, outside the graph and its checks."""
        return wrap(self._array)

    @data.setter
    def data(self, value: Tensor) -> None:
        if self._requires_grad and value._array.dtype.kind not in "fc":
            raise RuntimeError(
                "data set to a tensor that requires gradients must be floating point or complex "
                "dtype"
            )
        self._array = value._array

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Any:
        """Call `hook` with the gradient of this tensor; what it returns replaces it.

        Raises:
            RuntimeError: it does not require grad.
        """
        from refgrad.autograd.hooks import Handle, of

        if not self._requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self._node is not None:
            return Handle(of(self._node).tensor, hook)
        if self._hooks is None:
            self._hooks, self._watched = {}, True
        return Handle(self._hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Any:
        """Call `hook` with this leaf after its `.grad` was accumulated.

        Raises:
            RuntimeError: it is no leaf that requires grad.
        """
        from refgrad.autograd.hooks import Handle

        if not self._requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self._node is not None:
            raise RuntimeError(
                "post accumulate grad hooks cannot be registered on non-leaf tensors"
            )
        if self._post_hooks is None:
            self._post_hooks, self._watched = {}, True
        return Handle(self._post_hooks, hook)

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf in `.grad` too.

        Raises:
            RuntimeError: it does not require grad.
        """
        from refgrad.autograd.hooks import retain

        if not self._requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self._node is not None and self._retained is None:
            self._retained = retain(self)

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was called on this non-leaf."""
        return self._retained is not None

    # --- in-place writes -------------------------------------------------------------------------

    def mark_written(self) -> None:
        """Note a write to its memory, so that a pass that saved it can tell."""
        root = self.root()
        Writes.last = root._written = next(clock)
        root._writes += 1
        if root._node is not None:
            root._node.written = root._written
        if self is not root and self._node is not None:
            self._node.written = root._written

    @property
    def _version(self) -> int:
        """How often its memory was written in place, through itself or another view."""
        return int(self.root()._writes)

    def root(self) -> Tensor:
        """The tensor whose memory this one shares: itself where it is no view."""
        root = self
        while root._base is not None:
            root = root._base
        return root

    def check_writable(self) -> None:
        """Raise RuntimeError where a recorded in-place write is not possible."""
        if state.enabled and self._requires_grad and self._node is None:
            raise RuntimeError(LEAF_WRITE)

    def snapshot(self, *others: Any) -> Tensor:
        """What it is now, in memory of its own, for an operation with `others` that overwrites."""
        if Levels.open:
            from refgrad.ops.forward import copied

            made: Tensor = copied(self)
            return made
        if not state.enabled or not (
            self._requires_grad or any(isinstance(t, Tensor) and t._requires_grad for t in others)
        ):
            return self
        made = wrap(self._array.copy(), self._node)
        made._requires_grad = self._requires_grad
        return made

    def twin(self) -> Tensor:
        """Another tensor of the same memory and history."""
        made = wrap(self._array)
        made._node, made._requires_grad = self._node, self._requires_grad
        made._tangents = self._tangents
        return made

    def turn(self, made: Tensor) -> None:
        """Take over the array and the history of `made`, a view of the `twin` of this tensor."""
        self._array = made._array
        if Levels.open:
            from refgrad.ops.forward import tangents

            self._tangents = tangents(made)
        if made._requires_grad:
            self._node, self._requires_grad = made._node, True
            self._rebased = Writes.last
        self._turned = Writes.last

    def become(self, made: Tensor) -> Tensor:
        """Take over the values and the history of `made`, in this tensor's memory.

        Raises:
            RuntimeError: the shape or the dtype of `made` does not fit.
        """
        if made._array.shape != self._array.shape:
            raise RuntimeError(
                f"output with shape {list(self.shape)} doesn't match the broadcast shape "
                f"{list(made.shape)}"
            )
        if made._array.dtype != self._array.dtype:
            if not dtypes.can_cast(made.dtype, self.dtype):
                raise RuntimeError(
                    f"result type {made.dtype!r} can't be cast to the desired output type "
                    f"{self.dtype!r}"
                )
            made = made.to(self.dtype)
        if 0 in self._array.strides or not writeable(self._array):
            self._check_memory()
        np.copyto(self._array, made._array)
        self.mark_written()
        if state.enabled:
            self._take_history(made)
        if Levels.open:
            from refgrad.ops.forward import overwrite

            overwrite(self, made)
        return self

    def _check_memory(self) -> None:
        """Raise RuntimeError where its memory cannot take its elements one by one."""
        array = self._array
        repeats = any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True))
        if repeats and array.size:
            raise RuntimeError(
                "unsupported operation: more than one element of the written-to tensor refers to a "
                "single memory location. Please clone() the tensor before performing the operation."
            )
        if not writeable(array):
            raise RuntimeError("its memory is read-only. Please clone() the tensor first.")

    def _take_history(self, made: Tensor) -> None:
        """Continue from the history of `made`, whose values were just written here."""
        if made._requires_grad:
            self._node, self._requires_grad = made._node, True
            self._rebased = Writes.last
            self.retain_anew()

    def retain_anew(self) -> None:
        """Keep the gradient of what a recorded write made of this tensor, if it was kept so far."""
        if self._retained is not None:
            from refgrad.autograd.hooks import retain

            self._retained.remove()
            self._retained = retain(self)

    def __setitem__(self, index: Any, value: Any) -> None:
        from refgrad.ops.indexing import as_index, setitem
        from refgrad.ops.op import as_number

        self.check_writable()
        self.become(setitem(self.snapshot(value), as_number(as_index(index)), value))

    # --- NumPy's protocols: a rule, run on Tensors, is recorded ----------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        function = UFUNCS.get(ufunc)
        if method != "__call__" or function is None or kwargs:
            return NotImplemented
        return function(*inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        function = FUNCTIONS.get(func)
        return NotImplemented if function is None else function(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
                "protocol at the moment."
            )
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made._array = self._array.copy()
        made._node, made._requires_grad = None, self._requires_grad
        if self._grad is not None:
            made._grad = self._grad.detach().clone()
        return made


def wrap(array: Any, node: Any = None) -> Tensor:
    """A Tensor of `array`, without a copy; one that `node` made requires grad."""
    made = _new(Tensor)
    made._array = array
    made._node = node
    made._requires_grad = node is not None
    return made


def tensors_of(values: Any) -> tuple[Any, ...]:
    """`values`, one Tensor or several, as a tuple."""
    if isinstance(values, Tensor):
        return (values,)
    return tuple(values) if isinstance(values, Sequence) else (values,)
