"""A neural ODE by hand: the field of a damped rotation, learned through a Runge-Kutta solver."""

import refgrad as torch

STEPS, DT = 12, 0.15


def integrate(field, state):
    """The states after each step of the classical Runge-Kutta method."""
    states = []
    for _ in range(STEPS):
        k1 = field(state)
        k2 = field(state + DT / 2 * k1)
        k3 = field(state + DT / 2 * k2)
        k4 = field(state + DT * k3)
        state = state + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        states.append(state)
    return torch.stack(states)


truth = torch.tensor([[-0.2, 1.4], [-1.4, -0.2]], dtype=torch.float64)
angles = torch.arange(4, dtype=torch.float64) * 1.3
start = torch.stack([torch.cos(angles), 0.5 + torch.sin(angles)], dim=-1)
target = integrate(lambda s: s @ truth.T, start)

w1 = (0.5 * torch.sin(torch.arange(16, dtype=torch.float64) * 2.1)).reshape(2, 8).requires_grad_()
b1 = torch.zeros(8, dtype=torch.float64, requires_grad=True)
w2 = (0.5 * torch.cos(torch.arange(16, dtype=torch.float64) * 1.1)).reshape(8, 2).requires_grad_()
parameters = [w1, b1, w2]
velocity = [torch.zeros_like(p) for p in parameters]

trajectory = []
for step in range(120):
    loss = (integrate(lambda s: torch.tanh(s @ w1 + b1) @ w2, start) - target).pow(2).mean()
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for p, v, g in zip(parameters, velocity, gradients):
            v.mul_(0.9).add_(g)
            p.sub_(v, alpha=0.05)
    trajectory += [loss.item(), w1[0, 0].item()]
    if step % 20 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}")

with torch.no_grad():
    final = integrate(lambda s: torch.tanh(s @ w1 + b1) @ w2, start)[-1]
for reached, wanted in zip(final.tolist(), target[-1].tolist()):
    print(" ".join(f"{v:8.4f}" for v in reached), "|", " ".join(f"{v:8.4f}" for v in wanted))
