"""Convolutions and pooling, on a batch of 8 images or signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conformance.bench.workload import Cost, Made, Workload, Writer

_BATCH = 8


@dataclass(frozen=True)
class _Conv:
    """A convolution with as many channels in as out, but for `image` (3 in, `channels` out)."""

    kernel: int
    channels: int
    stride: int = 1
    groups: int = 1
    dimensions: int = 2
    image: bool = False

    @property
    def taken(self) -> int:
        return 3 if self.image else self.channels

    def positions(self, size: int) -> int:
        """Positions of the output, padded by half the kernel."""
        side = (size + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1
        return int(side**self.dimensions)

    def make(self, size: int) -> Made:
        w = Writer("float32")
        weights = self.taken // self.groups * self.kernel**self.dimensions
        x = w.leaf("x", _BATCH, self.taken, *[size] * self.dimensions)
        weight = w.leaf(
            "weight",
            self.channels,
            self.taken // self.groups,
            *[self.kernel] * self.dimensions,
            scale=weights**-0.5,
        )
        bias = w.leaf("bias", self.channels)
        y = w.call(
            f"nn.functional.conv{self.dimensions}d",
            x,
            weight,
            bias,
            stride=self.stride,
            padding=self.kernel // 2,
            groups=self.groups,
        )
        return w.program(y)

    def cost(self, size: int) -> Cost:
        """2 k^d C_in/groups for an output element (Dumoulin and Visin 2016); two such ways back.

        Bytes: the image, the weight and the output once; back, each of them twice.
        """
        taps = self.taken // self.groups * self.kernel**self.dimensions
        outputs = _BATCH * self.channels * self.positions(size)
        arrays = 4 * (_BATCH * self.taken * size**self.dimensions + self.channels * taps + outputs)
        flops = 2 * taps * outputs
        return Cost(1, flops, 2 * flops, arrays, 2 * arrays)


def _pooled(name: str) -> Callable[[int], Made]:
    def make(size: int) -> Made:
        w = Writer("float32")
        return w.program(w.call(f"nn.functional.{name}", w.leaf("x", _BATCH, 16, size, size), 2))

    return make


def _pool_cost(size: int) -> Cost:
    """One operation an input element, and one back; an input and a quarter of it as the output."""
    floats = _BATCH * 16 * size**2
    return Cost(1, floats, floats, 5 * floats, 5 * floats)


_CONVOLUTIONS = {
    "conv2d_3x3": (_Conv(3, 32), "conv2d 3x3, 32 channels"),
    "conv2d_1x1": (_Conv(1, 64), "conv2d 1x1, 64 channels"),
    "conv2d_7x7": (_Conv(7, 32, stride=2, image=True), "conv2d 7x7, stride 2, 3 channels to 32"),
    "conv2d_depthwise": (_Conv(3, 64, groups=64), "conv2d 3x3, depthwise, 64 channels"),
    "conv1d_3": (_Conv(3, 64, dimensions=1), "conv1d of width 3, 64 channels"),
}

WORKLOADS = (
    *(
        Workload(
            name=name,
            group="convolution",
            title=title,
            make=conv.make,
            cost=conv.cost,
            sizes=(8, 16, 32, 64) if conv.dimensions == 2 else (32, 256, 2048),
            quick=8 if conv.dimensions == 2 else 32,
            size_means="side" if conv.dimensions == 2 else "length",
            cuda_sizes=(32, 128) if conv.dimensions == 2 else (2048, 16384),
        )
        for name, (conv, title) in _CONVOLUTIONS.items()
    ),
    *(
        Workload(
            name=name,
            group="convolution",
            title=f"{name} 2x2, 16 channels",
            make=_pooled(name),
            cost=_pool_cost,
            sizes=(8, 32, 128),
            quick=8,
            size_means="side",
            cuda_sizes=(128, 512),
        )
        for name in ("max_pool2d", "avg_pool2d")
    ),
)
