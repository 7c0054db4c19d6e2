"""Differentiable physics: the throw that hits a target, found through a simulation with drag.

Each step of the simulation is differentiated; the ball bounces off the ground once on its way.
"""

import refgrad as torch

torch.set_default_dtype(torch.float64)

gravity = torch.tensor([0.0, -9.81])
target = torch.tensor([5.0, 1.2])
DT, STEPS, DRAG = 0.05, 30, 0.05


def throw(velocity):
    """Where the ball is at the end, and how often it bounced."""
    position, bounces = torch.tensor([0.0, 1.5]), 0
    for _ in range(STEPS):
        drag = DRAG * velocity * velocity.norm()
        velocity = velocity + DT * (gravity - drag)
        position = position + DT * velocity
        if position[1] < 0:  # reflect height and vertical speed, with loss
            position = torch.stack([position[0], -position[1]])
            velocity = torch.stack([velocity[0], -0.8 * velocity[1]])
            bounces += 1
    return position, bounces


velocity = torch.tensor([3.0, 4.0], requires_grad=True)
trajectory = []
for step in range(120):
    position, bounces = throw(velocity)
    miss = (position - target).square().sum()
    (g,) = torch.autograd.grad(miss, velocity)
    trajectory += [miss.item(), *velocity.tolist()]
    if step % 20 == 0:
        print(f"throw {step:3d}: miss {miss.item():.6f} after {bounces} bounce(s)")
    velocity = (velocity - 0.05 * g).detach().requires_grad_()

print("velocity:", [round(v, 5) for v in velocity.tolist()])
