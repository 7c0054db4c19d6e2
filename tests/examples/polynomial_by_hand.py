"""A cubic fitted to the sine: four scalar parameters, moved by hand against their gradients."""

import refgrad as torch

x = torch.linspace(-2.5, 3.0, 200, dtype=torch.float64)
y = torch.sin(x)
a, b, c, d = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(4))

trajectory = []
for step in range(500):
    loss = (a + b * x + c * x**2 + d * x**3 - y).pow(2).mean()
    loss.backward()
    trajectory += [loss.item(), b.item(), d.item()]
    if step % 100 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}")
    with torch.no_grad():
        for p, rate in ((a, 1e-1), (b, 5e-2), (c, 1e-2), (d, 4e-3)):
            p -= rate * p.grad
            p.grad = None

print(f"y = {a.item():.4f} + {b.item():.4f} x + {c.item():.4f} x^2 + {d.item():.4f} x^3")
