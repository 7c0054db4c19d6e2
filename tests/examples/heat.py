"""An inverse problem: the initial heat of a rod from what is left of it, by writes to slices."""

import refgrad as torch

torch.set_default_dtype(torch.float64)

POINTS, STEPS, RATE = 20, 12, 0.8


def diffuse(u):
    u = u.clone()
    for _ in range(STEPS):
        flow = u[1:] - u[:-1]
        u[:-1] += RATE / 2 * flow
        u[1:] -= RATE / 2 * flow
    return u


grid = torch.linspace(0.0, 1.0, POINTS)
truth = torch.exp(-40 * (grid - 0.35) ** 2) + 0.5 * torch.exp(-60 * (grid - 0.75) ** 2)
measured = diffuse(truth)

initial = torch.full((POINTS,), 0.3).requires_grad_()
trajectory = []
for step in range(200):
    roughness = (initial[2:] - 2 * initial[1:-1] + initial[:-2]).square().sum()
    loss = (diffuse(initial) - measured).square().sum() + 1e-4 * roughness
    initial.grad = None
    loss.backward()
    with torch.no_grad():
        initial -= 0.8 * initial.grad
        initial.clamp_(min=0)
    trajectory += [loss.item(), initial.max().item()]
    if step % 40 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}")

print("hottest at:", int(initial.argmax()), "of", POINTS, "truth at", int(truth.argmax()))
print(" ".join(f"{v:.3f}" for v in initial.tolist()))
