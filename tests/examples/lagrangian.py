"""Mechanics from a Lagrangian alone: the equations of motion of a double pendulum by autograd.

q'' = (d2L/dq'dq')^-1 (dL/dq - d2L/dq'dq q'), each term a derivative of L.
"""

import refgrad as torch

torch.set_default_dtype(torch.float64)


def lagrangian(q, v):
    kinetic = v[0] ** 2 + v[1] ** 2 / 2 + v[0] * v[1] * torch.cos(q[0] - q[1])
    potential = -2 * torch.cos(q[0]) - torch.cos(q[1])
    return kinetic - potential


def acceleration(q, v):
    q, v = q.detach().requires_grad_(), v.detach().requires_grad_()
    by_q, by_v = torch.autograd.grad(lagrangian(q, v), (q, v), create_graph=True)
    rows = [torch.autograd.grad(p, (q, v), retain_graph=True) for p in by_v]
    mixed, mass = (torch.stack(part) for part in zip(*rows))
    return torch.linalg.solve(mass, (by_q - mixed @ v).detach())


def energy(q, v):
    return (v[0] ** 2 + v[1] ** 2 / 2 + v[0] * v[1] * torch.cos(q[0] - q[1])
            - 2 * torch.cos(q[0]) - torch.cos(q[1])).item()  # fmt: skip


q, v, dt = torch.tensor([0.5, -0.3]), torch.zeros(2), 0.02
start = energy(q, v)
trajectory = []
for step in range(200):
    half = v + dt / 2 * acceleration(q, v)
    q = q + dt * half
    v = half + dt / 2 * acceleration(q, half)
    trajectory += [*q.tolist(), *v.tolist()]
    if step % 40 == 39:
        print(f"t {dt * (step + 1):.2f}  angles {q[0].item():9.6f} {q[1].item():9.6f}")

print(f"energy lost: {abs(energy(q, v) - start):.4f}")
