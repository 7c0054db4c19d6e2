"""Complex gradients: the ground state of a spin chain, by descent on its complex amplitudes."""

import refgrad as torch

SPINS = 4
I = torch.eye(2, dtype=torch.complex128)
X = torch.tensor([[0, 1], [1, 0]], dtype=torch.complex128)
Y = torch.tensor([[0, -1j], [1j, 0]], dtype=torch.complex128)
Z = torch.tensor([[1, 0], [0, -1]], dtype=torch.complex128)


def acting(**at):
    """The product of one-spin operators at the sites s0, s1, ..., the identity elsewhere."""
    product = torch.ones(1, 1, dtype=torch.complex128)
    for site in range(SPINS):
        product = torch.kron(product, at.get(f"s{site}", I))
    return product


H = sum(acting(**{f"s{i}": A, f"s{i + 1}": A}) for i in range(SPINS - 1) for A in (X, Y, Z))
H = H + 0.4 * sum(acting(**{f"s{i}": Y}) for i in range(SPINS))

n = 2**SPINS
k = torch.arange(n, dtype=torch.float64)
psi = torch.polar(1 + 0.1 * torch.cos(k), 0.9 * k).requires_grad_()
trajectory = []
for step in range(200):
    state = psi / psi.abs().square().sum().sqrt()
    energy = torch.vdot(state, H @ state).real
    energy.backward()
    with torch.no_grad():
        psi -= 0.3 * psi.grad
    psi.grad = None
    trajectory += [energy.item(), psi[0].real.item(), psi[0].imag.item()]
    if step % 40 == 0:
        print(f"step {step:3d}  energy {energy.item():.6f}")

print(f"by diagonalisation {torch.linalg.eigvalsh(H)[0].item():.6f}")
state = (psi / psi.norm()).detach()
for i in range(SPINS - 1):
    neighbours = torch.vdot(state, acting(**{f"s{i}": Z, f"s{i + 1}": Z}) @ state)
    print(f"<Z{i} Z{i + 1}> = {neighbours.real.item():.6f}")
