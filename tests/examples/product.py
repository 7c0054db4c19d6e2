"""The gradient of a product of three scalars."""

import refgrad as torch

x = torch.tensor([2.0], requires_grad=True)
y = torch.tensor([3.0], requires_grad=True)
z = torch.tensor([4.0], requires_grad=True)

f = x * y * z
f.backward()

print("Gradient df/dx:", x.grad)
print("Gradient df/dy:", y.grad)
print("Gradient df/dz:", z.grad)
