"""The chain rule: z = f(h(x)) with h(x) = x**2 and f(y) = y + 1."""

import refgrad as torch


def h(x):
    return x**2


def f(y):
    return y + 1


x = torch.tensor(2.0, requires_grad=True)
y = h(x)
z = f(y)
z.backward()

print(x.grad)
