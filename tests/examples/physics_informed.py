"""A physics-informed fit: u''' = -u' with u(0) = 0, u'(0) = 1, u''(0) = 0, whose solution is sin.

The residual of the equation holds third derivatives of the net in its input; its gradient in the
parameters is a fourth derivation.
"""

import refgrad as torch

torch.set_default_dtype(torch.float64)

hidden = 10
w1 = torch.linspace(-1.2, 1.2, hidden).reshape(1, hidden).requires_grad_()
b1 = torch.sin(torch.arange(hidden) * 1.0).requires_grad_()
w2 = (0.3 * torch.cos(torch.arange(hidden) * 2.0)).reshape(hidden, 1).requires_grad_()
parameters = [w1, b1, w2]


def u(x):
    return torch.tanh(x @ w1 + b1) @ w2


def derivative(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


inside = torch.linspace(0.0, 3.0, 16).unsqueeze(1).requires_grad_()
zero = torch.zeros(1, 1, requires_grad=True)
first = [torch.zeros_like(p) for p in parameters]
second = [torch.zeros_like(p) for p in parameters]

trajectory = []
for step in range(1, 301):
    du = derivative(u(inside), inside)
    residual = derivative(derivative(du, inside), inside) + du
    start = u(zero)
    slope = derivative(start, zero)
    bend = derivative(slope, zero)
    conditions = start.pow(2) + (slope - 1).pow(2) + bend.pow(2)
    loss = residual.pow(2).mean() + conditions.sum()
    for p in parameters:
        p.grad = None
    loss.backward(inputs=parameters)
    with torch.no_grad():
        for p, m, v in zip(parameters, first, second):
            m.lerp_(p.grad, 0.1)
            v.mul_(0.99).addcmul_(p.grad, p.grad, value=0.01)
            size = (v / (1 - 0.99**step)).sqrt_().add_(1e-8)
            p.addcdiv_(m, size, value=-0.02 / (1 - 0.9**step))
    trajectory.append(loss.item())
    if step % 50 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}")

with torch.no_grad():
    for x in (0.5, 1.0, 2.0):
        at = torch.full((1, 1), x)
        print(f"u({x}) = {u(at).item():.4f}, sin = {torch.sin(at).item():.4f}")
