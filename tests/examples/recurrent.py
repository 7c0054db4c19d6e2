"""A recurrent net that continues a series, trained by backpropagation through time."""

import refgrad as torch
import refgrad.nn.functional as F

torch.set_default_dtype(torch.float64)

HIDDEN = 8
series = torch.sin(torch.arange(41) * 0.35) + 0.3 * torch.cos(torch.arange(41) * 0.9)
inputs, targets = series[:-1].reshape(4, 10), series[1:].reshape(4, 10)


def pattern(*shape, seed):
    count = torch.Size(shape).numel()
    return (0.4 * torch.sin(torch.arange(count) * 1.6 + seed)).reshape(shape).requires_grad_()


w_in, w_hidden = pattern(HIDDEN, 1, seed=1), pattern(HIDDEN, HIDDEN, seed=2)
bias = pattern(HIDDEN, seed=3)
w_out, b_out = pattern(1, HIDDEN, seed=4), pattern(1, seed=5)
parameters = [w_in, w_hidden, bias, w_out, b_out]


def predict(inputs):
    h = torch.zeros(inputs.shape[0], HIDDEN)
    outputs = []
    for x in inputs.split(1, dim=1):
        h = torch.tanh(F.linear(x, w_in) + F.linear(h, w_hidden, bias))
        outputs.append(F.linear(h, w_out, b_out))
    return torch.cat(outputs, dim=1)


trajectory = []
for step in range(150):
    loss = F.mse_loss(predict(inputs), targets)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in parameters]).norm()
    scale = torch.clamp(0.5 / (norm + 1e-6), max=1.0)
    for p in parameters:
        p.grad.mul_(scale)
        p.data.add_(p.grad, alpha=-0.2)
        p.grad.zero_()
    trajectory += [loss.item(), norm.item()]
    if step % 30 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}  gradient norm {norm.item():.6f}")

with torch.no_grad():
    print("last row:", " ".join(f"{v:.4f}" for v in predict(inputs)[-1].tolist()))
