"""Implicit differentiation: a deep equilibrium layer, and gradients that skip its iterations.

z = tanh(W z + U x) is solved without recording. By the implicit function theorem a gradient g of z
goes on as (I - J)^-T g, with J = dtanh(W z + U x)/dz: a tensor hook solves that system.
"""

import refgrad as torch

torch.set_default_dtype(torch.float64)

N = 6
x = torch.sin(torch.arange(3 * N) * 0.7).reshape(3, N)
y = torch.cos(torch.arange(3 * N) * 0.4).reshape(3, N) * 0.5
W = (0.2 * torch.sin(torch.arange(N * N) * 1.3)).reshape(N, N).requires_grad_()
U = (0.3 * torch.cos(torch.arange(N * N) * 0.8)).reshape(N, N).requires_grad_()


def equilibrium(W, U, x):
    """The fixed point z(x) of one sample, attached to the graph by one step."""
    with torch.no_grad():
        z = torch.zeros(N)
        for _ in range(40):
            z = torch.tanh(W @ z + U @ x)
    z = torch.tanh(W @ z + U @ x)
    slope = 1 - z.detach() ** 2
    system = (torch.eye(N) - slope.unsqueeze(1) * W.detach()).T
    z.register_hook(lambda g: torch.linalg.solve(system, g))
    return z


trajectory = []
for step in range(100):
    loss = sum((equilibrium(W, U, a) - b).square().sum() for a, b in zip(x, y))
    loss.backward()
    with torch.no_grad():
        for p in (W, U):
            p -= 0.05 * p.grad
            p.grad = None
    trajectory += [loss.item(), W[0, 0].item(), U[-1, -1].item()]
    if step % 20 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}")

# against the gradient through many unrolled steps
z = torch.zeros(N)
for _ in range(60):
    z = torch.tanh(W @ z + U @ x[0])
(unrolled,) = torch.autograd.grad(z.sum(), W)
(implicit,) = torch.autograd.grad(equilibrium(W, U, x[0]).sum(), W)
print("agrees with unrolling:", bool((unrolled - implicit).abs().max() < 1e-9))
print("norm:", f"{implicit.norm().item():.6f}")
