"""Newton's method without a Hessian: conjugate gradients on Hessian-vector products.

The function is Rosenbrock's in ten dimensions; a product is a second pass, over a gradient that was
recorded.
"""

import refgrad as torch

torch.set_default_dtype(torch.float64)


def rosenbrock(x):
    return (5 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def newton_direction(gradient, x, damping, iterations=12):
    """Solve (H + damping I) d = -gradient by conjugate gradients."""

    def product(v):
        (hv,) = torch.autograd.grad(gradient, x, grad_outputs=v, retain_graph=True)
        return hv + damping * v

    d = torch.zeros_like(x)
    residual = -gradient.detach()
    direction = residual.clone()
    rho = residual.dot(residual)
    for _ in range(iterations):
        step = product(direction)
        curvature = direction.dot(step)
        if curvature <= 0 or rho < 1e-20:
            break
        alpha = rho / curvature
        d += alpha * direction
        residual -= alpha * step
        rho, former = residual.dot(residual), rho
        direction = residual + (rho / former) * direction
    return d


x = torch.linspace(-1.0, 0.8, 10).requires_grad_()
trajectory = []
for step in range(100):
    value = rosenbrock(x)
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    d = newton_direction(gradient, x, damping=1.0)
    with torch.no_grad():
        x += 0.3 * d
    trajectory += [value.item(), gradient.norm().item()]
    if step % 20 == 0:
        print(f"step {step:3d}  f {value.item():.6f}  |gradient| {gradient.norm().item():.6f}")

print("x:", " ".join(f"{v:.4f}" for v in x.tolist()))
