"""A spiral classified: cross entropy, weight decay, and Adam by hand with its state in place."""

import refgrad as torch
import refgrad.nn.functional as F

torch.set_default_dtype(torch.float64)

CLASSES, PER_CLASS = 3, 12
t = torch.linspace(0.2, 1.0, PER_CLASS)
arms = [
    torch.stack([t * torch.cos(5 * t + 2.1 * k), t * torch.sin(5 * t + 2.1 * k)], dim=1)
    for k in range(CLASSES)
]
points = torch.cat(arms)
labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)

W1 = torch.sin(torch.arange(32) * 1.1).reshape(16, 2).requires_grad_()
b1 = torch.zeros(16, requires_grad=True)
W2 = (0.3 * torch.cos(torch.arange(48) * 0.7)).reshape(CLASSES, 16).requires_grad_()
parameters = [W1, b1, W2]
state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

trajectory = []
for step in range(1, 201):
    logits = F.linear(F.silu(F.linear(points, W1, b1)), W2)
    loss = F.cross_entropy(logits, labels, label_smoothing=0.05) + 1e-3 * W2.pow(2).sum()
    for p in parameters:
        p.grad = None
    loss.backward()
    with torch.no_grad():
        for p, (m, v) in zip(parameters, state):
            m.mul_(0.9).add_(p.grad, alpha=0.1)
            v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
            p.addcdiv_(m / (1 - 0.9**step), (v / (1 - 0.999**step)).sqrt() + 1e-8, value=-0.03)
    trajectory.append(loss.item())
    if step % 40 == 0:
        right = (logits.argmax(dim=1) == labels).double().mean()
        print(f"step {step:3d}  loss {loss.item():.6f}  accuracy {right.item():.4f}")
