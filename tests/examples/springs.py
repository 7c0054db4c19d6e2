"""Differentiable physics: the stiffness of a chain of masses, recovered from how it moved.

The state is written in place, slice by slice, inside the recorded simulation.
"""

import refgrad as torch

MASSES, STEPS, DT = 6, 40, 0.15


def simulate(stiffness, damping):
    """All positions over time, of masses between two walls, by symplectic Euler steps."""
    grid = torch.arange(MASSES, dtype=torch.float64)
    x, v = torch.sin(grid + 1.0) * 0.5, torch.zeros(MASSES, dtype=torch.float64)
    x, v = x * torch.ones_like(stiffness[0]), v * stiffness[0]
    history = []
    for _ in range(STEPS):
        stretch = torch.zeros(MASSES + 1, dtype=torch.float64)
        stretch[0] = x[0]
        stretch[1:-1] = x[1:] - x[:-1]
        stretch[-1] = -x[-1]
        force = stiffness * stretch
        v += DT * (force[1:] - force[:-1])
        v[::2] *= 1 - DT * damping
        x = x + DT * v
        history.append(x)
    return torch.stack(history)


true_stiffness = 1.0 + 0.5 * torch.cos(torch.arange(MASSES + 1, dtype=torch.float64))
observed = simulate(true_stiffness, torch.tensor(0.3, dtype=torch.float64))

stiffness = torch.ones(MASSES + 1, dtype=torch.float64, requires_grad=True)
damping = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
trajectory = []
for step in range(120):
    loss = (simulate(stiffness, damping) - observed).pow(2).sum()
    loss.backward()
    trajectory += [loss.item(), damping.item()]
    with torch.no_grad():
        stiffness -= 0.02 * stiffness.grad
        damping -= 0.004 * damping.grad
    stiffness.grad.zero_()
    damping.grad.zero_()
    if step % 20 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}  damping {damping.item():.4f}")

for found, true in zip(stiffness.tolist(), true_stiffness.tolist()):
    print(f"{found:.4f}  {true:.4f}")
