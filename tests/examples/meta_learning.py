"""Meta-learning: a start from which one gradient step fits any of several sines (MAML).

The outer gradient goes through the inner step, so it holds second derivatives.
"""

import refgrad as torch
import refgrad.nn.functional as F

torch.set_default_dtype(torch.float64)


def net(x, parameters):
    w1, b1, w2, b2 = parameters
    return F.linear(torch.tanh(F.linear(x, w1, b1)), w2, b2)


def adapt(parameters, x, y, rate=0.1):
    """The parameters after one step on a task, differentiable in those before it."""
    loss = F.mse_loss(net(x, parameters), y)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    return [p - rate * g for p, g in zip(parameters, gradients)]


grid = torch.linspace(-2.0, 2.0, 10).unsqueeze(1)
seen, unseen = grid[::2], grid[1::2]
tasks = [(0.6 + 0.3 * k, 0.5 * k) for k in range(4)]  # amplitude and phase

shapes = [(10, 1), (10,), (1, 10), (1,)]
parameters = []
for k, shape in enumerate(shapes):
    count = torch.Size(shape).numel()
    values = 0.7 * torch.sin(torch.arange(count) * 1.9 + k)
    parameters.append(values.reshape(shape).requires_grad_())

trajectory = []
for step in range(150):
    total = torch.zeros(())
    for amplitude, phase in tasks:
        adapted = adapt(parameters, seen, amplitude * torch.sin(seen + phase))
        total = total + F.mse_loss(net(unseen, adapted), amplitude * torch.sin(unseen + phase))
    loss = total / len(tasks)
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for p, g in zip(parameters, gradients):
            p.add_(g, alpha=-0.1)
    trajectory += [loss.item(), parameters[0][0, 0].item()]
    if step % 30 == 0:
        print(f"meta step {step:3d}  loss after adaptation {loss.item():.6f}")

amplitude, phase = 1.0, 0.8  # a task that it has not seen
y = amplitude * torch.sin(grid + phase)
before = F.mse_loss(net(grid, parameters), y)
after = F.mse_loss(net(grid, adapt(parameters, grid, y)), y)
print(f"a new task: {before.item():.6f} before, {after.item():.6f} after one step")
