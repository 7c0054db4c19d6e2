"""A net of two layers on a small regression, with gradients zeroed and weights moved in place."""

import refgrad as torch

N, D_IN, HIDDEN, D_OUT = 16, 5, 12, 3


def weights(rows, columns, scale):
    grid = torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns)
    return (torch.sin(grid * 1.7 + rows) * scale).requires_grad_()


x = torch.cos(torch.arange(N * D_IN, dtype=torch.float64) * 0.9).reshape(N, D_IN)
y = torch.stack([x.sum(1), x[:, 0] * x[:, 1], torch.abs(x[:, 2])], dim=1)
w1, w2 = weights(D_IN, HIDDEN, 0.6), weights(HIDDEN, D_OUT, 0.4)

trajectory = []
for step in range(300):
    hidden = x.mm(w1).clamp(min=0)
    loss = (hidden.mm(w2) - y).square().sum()
    if w1.grad is not None:
        w1.grad.zero_()
        w2.grad.zero_()
    loss.backward()
    with torch.no_grad():
        w1 -= 2e-3 * w1.grad
        w2 -= 2e-3 * w2.grad
    trajectory.append(loss.item())
    if step % 50 == 49:
        print(step + 1, f"{loss.item():.6f}", f"{w1.grad.norm().item():.6f}")

print("dead units:", int((hidden == 0).all(dim=0).sum()))
print("first row:", " ".join(f"{v:.5f}" for v in w1[0].tolist()))
