"""The ops that generated Programs are made of: a table, one entry an op.

Domains keep a margin from where an op is undefined or its derivative explodes: a generated
Program should be decidable. What happens at those very points is what the corpus is for.
"""

from __future__ import annotations

from conformance.sources import templates as t
from conformance.sources import templates_index as ti
from conformance.sources import templates_write as tw
from conformance.sources.templates import Op
from conformance.sources.templates import elementwise as f
from conformance.sources.values import REAL, UNIT, Domain

POSITIVE = Domain(low=0.125)
ABOVE_ONE = Domain(low=1.125)
NONZERO = Domain(gap=0.125)
OPEN_UNIT = Domain(0.05, 0.95)
MODERATE = Domain(-4.0, 4.0)
EXPONENT = Domain(-40.0, 8.0)
NEAR = Domain(-50.0, 50.0)
TAIL = Domain(-2.0, 50.0)  # below, torch has lost the digits of the value itself
ANGLE = Domain(-90.0, 90.0)
SHORT_ANGLE = Domain(-1.25, 1.25)
APART = Domain(low=0.05)

F = "torch.nn.functional."

FAMILIES: dict[str, tuple[Op, ...]] = {
    "smooth": (
        Op("torch.neg", f()),
        Op("torch.sin", f(ANGLE)),
        Op("torch.cos", f(ANGLE)),
        Op("torch.tan", f(SHORT_ANGLE)),
        Op("torch.asin", f(UNIT)),
        Op("torch.acos", f(UNIT)),
        Op("torch.atan", f()),
        Op("torch.sinh", f(MODERATE)),
        Op("torch.cosh", f(MODERATE)),
        Op("torch.tanh", f(NEAR)),
        Op("torch.asinh", f()),
        Op("torch.acosh", f(ABOVE_ONE)),
        Op("torch.atanh", f(UNIT)),
        Op("torch.exp", f(EXPONENT)),
        Op("torch.exp2", f(EXPONENT)),
        Op("torch.expm1", f(EXPONENT)),
        Op("torch.log", f(POSITIVE)),
        Op("torch.log2", f(POSITIVE)),
        Op("torch.log10", f(POSITIVE)),
        Op("torch.log1p", f(Domain(low=-0.875))),
        Op("torch.sqrt", f(POSITIVE)),
        Op("torch.rsqrt", f(POSITIVE)),
        Op("torch.square", f()),
        Op("torch.reciprocal", f(NONZERO)),
        Op("torch.sigmoid", f(NEAR)),
        Op("torch.logit", f(OPEN_UNIT)),
        Op("torch.erf", f(MODERATE)),
        Op("torch.erfc", f(MODERATE)),
        Op("torch.erfinv", f(UNIT)),
        Op("torch.lgamma", f(POSITIVE)),
        Op("torch.digamma", f(POSITIVE)),
        Op("torch.clone", f()),
        Op("torch.Tensor.contiguous", f()),
    ),
    "switching": (
        Op("torch.abs", f()),
        Op("torch.sign", f()),
        Op("torch.clamp", f(min=(-0.75, ..., -1.5), max=(0.5, 1.0))),
        Op("torch.floor", f()),
        Op("torch.ceil", f()),
        Op("torch.trunc", f()),
        Op("torch.round", f()),
        Op("torch.relu", f()),
        Op(F + "relu6", f()),
        Op(F + "hardtanh", f(min_val=(-1.0, -0.5), max_val=(1.0, 2.0))),
        Op(F + "leaky_relu", f(negative_slope=(0.01, 0.25))),
    ),
    "activation": (
        Op(F + "softplus", f(NEAR, beta=(..., 2.0))),
        Op(F + "gelu", f(TAIL, approximate=("none", "tanh"))),
        Op(F + "silu", f(NEAR)),
        Op(F + "mish", f(NEAR)),
        Op(F + "elu", f(NEAR, alpha=(1.0, 0.5))),
        Op(F + "selu", f(NEAR)),
        Op(F + "logsigmoid", f(NEAR)),
        Op(F + "softsign", f()),
    ),
    "binary": (
        Op("torch.add", t.binary(number=(1.5, -2), alpha=(..., ..., -2.0))),
        Op("torch.sub", t.binary(number=(1.5, 3), alpha=(..., ..., 0.5))),
        Op("torch.rsub", t.binary(number=(1.5, 1))),
        Op("torch.mul", t.binary(number=(-1.5, 2, 0))),
        Op("torch.div", t.binary(REAL, NONZERO, number=(-2.0, 4))),
        Op("torch.pow", t.binary(Domain(0.25, 4.0), MODERATE, number=(2, 0.5, -1, 3, 0, 1))),
        Op("torch.maximum", t.binary()),
        Op("torch.minimum", t.binary()),
        Op("torch.atan2", t.binary(NONZERO, REAL)),
        Op("torch.hypot", t.binary(NONZERO, REAL)),
        Op("torch.logaddexp", t.binary(NEAR, NEAR)),
        Op("torch.xlogy", t.binary(REAL, POSITIVE)),
        Op("torch.addcmul", t.ternary(REAL, REAL, REAL, value=(..., -0.5))),
        Op("torch.addcdiv", t.ternary(REAL, REAL, NONZERO, value=(..., 2.0))),
        Op("torch.lerp", t.ternary(REAL, REAL, REAL)),
        Op("torch.where", t.where),
        Op("torch.gt", t.compare),
        Op("torch.le", t.compare),
    ),
    "reducing": (
        Op("torch.sum", t.reduce()),
        Op("torch.mean", t.reduce(least=1)),
        Op("torch.prod", t.reduce(Domain(-8.0, 8.0), many=False)),
        Op("torch.amax", t.reduce(least=1)),
        Op("torch.amin", t.reduce(least=1)),
        Op("torch.max", t.reduce(many=False, least=1)),
        Op("torch.min", t.reduce(many=False, least=1)),
        Op("torch.median", t.median),
        Op("torch.var", t.spread),
        Op("torch.std", t.spread, result=APART),
        Op("torch.linalg.vector_norm", t.reduce(least=1, ord=(2, 1, 3)), result=APART),
        Op("torch.logsumexp", t.along(NEAR, least=1)),
    ),
    "along": (
        Op("torch.softmax", t.along(NEAR)),
        Op("torch.log_softmax", t.along(NEAR)),
        Op("torch.cumsum", t.along()),
        Op("torch.cumprod", t.along(Domain(-8.0, 8.0))),
        Op("torch.logcumsumexp", t.along(NEAR)),
        Op("torch.cummax", t.along(least=1)),
        Op("torch.sort", t.ordered),
        Op("torch.argsort", t.ordered),
        Op("torch.topk", t.ranked),
        Op("torch.kthvalue", t.kth),
    ),
    "shaping": (
        Op("torch.reshape", t.reshape),
        Op("torch.Tensor.view", t.view),
        Op("torch.permute", t.permute),
        Op("torch.transpose", t.two_axes()),
        Op("torch.movedim", t.two_axes()),
        Op("torch.squeeze", t.squeeze),
        Op("torch.unsqueeze", t.unsqueeze),
        Op("torch.Tensor.expand", t.expand),
        Op("torch.broadcast_to", t.broadcast_to),
        Op("torch.Tensor.repeat", t.repeat),
        Op("torch.repeat_interleave", t.repeat_interleave),
        Op("torch.flip", t.flip),
        Op("torch.roll", t.roll),
        Op("torch.flatten", t.flatten),
        Op("torch.unflatten", t.unflatten),
        Op("torch.narrow", t.narrow),
        Op("torch.select", t.select),
        Op("torch.Tensor.unfold", t.unfold),
        Op("torch.diagonal", t.diagonal),
        Op("torch.tril", t.triangle),
        Op("torch.triu", t.triangle),
        Op("torch.split", t.split),
        Op("torch.chunk", t.chunk),
        Op("torch.unbind", t.along(low=1)),
        Op("torch.cat", t.join),
        Op("torch.stack", t.stack),
        Op(F + "pad", t.pad),
    ),
    "indexing": (
        Op("torch.Tensor.__getitem__", ti.getitem),
        Op("torch.gather", ti.gather),
        Op("torch.take_along_dim", ti.take_along),
        Op("torch.index_select", ti.index_select),
        Op("torch.take", ti.take),
        Op("torch.masked_select", ti.masked_select),
        Op("torch.masked_fill", ti.masked_fill),
        Op("torch.masked_scatter", ti.masked_scatter),
        Op("torch.scatter", ti.scatter),
        Op("torch.scatter_add", ti.scatter_add),
        Op("torch.index_add", ti.index_add),
        Op("torch.index_fill", ti.index_fill),
        Op("torch.index_put", ti.index_put),
    ),
    "in place": (
        Op("torch.Tensor.mul_", tw.binary(number=(-1.5, 2))),
        Op("torch.Tensor.add_", tw.binary(number=(1.5,))),
        Op("torch.Tensor.sub_", tw.binary()),
        Op("torch.Tensor.div_", tw.binary(REAL, NONZERO, number=(-2.0,))),
        Op("torch.Tensor.copy_", tw.binary()),
        Op("torch.Tensor.exp_", tw.unary(EXPONENT)),
        Op("torch.Tensor.sin_", tw.unary(ANGLE)),
        Op("torch.Tensor.tanh_", tw.unary(NEAR)),
        Op("torch.Tensor.neg_", tw.unary()),
        Op("torch.Tensor.relu_", tw.unary()),
        Op("torch.Tensor.clamp_", tw.unary(min=(-0.75, ...), max=(0.5, 1.0))),
        Op("torch.Tensor.zero_", tw.unary()),
        Op("torch.Tensor.masked_fill_", tw.masked_fill),
        Op("torch.Tensor.__setitem__", tw.setitem),
    ),
    "products": (
        Op("torch.matmul", ti.matmul),
        Op("torch.mm", ti.inner(2, 2, 2)),
        Op("torch.bmm", ti.inner(3, 3, 3)),
        Op("torch.mv", ti.inner(2, 2, 1)),
        Op("torch.dot", ti.inner(1, 1, 1)),
        Op("torch.outer", ti.outer),
        Op("torch.addmm", ti.plus(ti.inner(2, 2, 2))),
        Op("torch.baddbmm", ti.plus(ti.inner(3, 3, 3))),
        Op("torch.addmv", ti.plus(ti.inner(2, 2, 1))),
        Op("torch.einsum", ti.einsum),
        Op("torch.tensordot", ti.tensordot),
    ),
    "layers": (
        Op(F + "linear", ti.linear),
        Op(F + "conv1d", ti.convolution(1)),
        Op(F + "conv2d", ti.convolution(2)),
        Op(F + "embedding", ti.embedding),
        Op(F + "layer_norm", ti.normalised(bias=True)),
        Op(F + "rms_norm", ti.normalised(bias=False)),
        Op(F + "mse_loss", ti.loss),
        Op(F + "l1_loss", ti.loss),
        Op(F + "cross_entropy", ti.classify),
        Op(F + "nll_loss", ti.classify),
        Op(F + "scaled_dot_product_attention", ti.attention),
    ),
}

OPS: dict[str, Op] = {op.name: op for family in FAMILIES.values() for op in family}
