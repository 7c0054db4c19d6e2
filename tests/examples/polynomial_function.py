"""A polynomial fitted to the sine with a custom Function: Chebyshev's T3, whose derivative we know.

Its backward is made of differentiable operations, so second derivatives go through it too.
"""

import refgrad as torch


class Chebyshev3(torch.autograd.Function):
    """T3(x) = 4 x^3 - 3 x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 4 * x**3 - 3 * x

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output * (12 * x**2 - 3)


x = torch.linspace(-2.0, 2.2, 150, dtype=torch.float64)
y = torch.sin(x)
a, b, c, d = (
    torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.0, -1.0, 0.0, 0.2)
)

trajectory = []
for step in range(300):
    loss = (a + b * Chebyshev3.apply(c + d * x) - y).pow(2).mean()
    loss.backward()
    trajectory += [loss.item(), b.item(), d.item()]
    with torch.no_grad():
        for p, rate in ((a, 0.05), (b, 0.05), (c, 0.005), (d, 0.005)):
            p -= rate * p.grad
            p.grad = None
    if step % 60 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}")

print(f"y = {a.item():.4f} + {b.item():.4f} T3({c.item():.4f} + {d.item():.4f} x)")

slope = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
(first,) = torch.autograd.grad(Chebyshev3.apply(slope), slope, create_graph=True)
(second,) = torch.autograd.grad(first, slope)
print(f"T3'(0.3) = {first.item():.4f}, T3''(0.3) = {second.item():.4f}")
