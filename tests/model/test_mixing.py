"""Policies in training: forward values, and the gradients of foveation-method.md, section 5."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from model.mixing import (
    categorical_weights,
    gumbel_noise,
    gumbel_weights,
    mean_weights,
    mix,
    mode_weights,
)

LOGITS = torch.tensor([[0.3, 1.2, -0.4], [2.0, 2.0, -50.0]])


def gradients(weights_of: object, logits_ND: Tensor = LOGITS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient at the logits; G_d = <g, x_d>; probabilities; weights, for a quadratic loss on the mixed patch."""
    torch.manual_seed(0)
    patches = torch.randn(2, 3, 2, 4, 4)
    logits = logits_ND.clone().requires_grad_()
    weights = weights_of(logits.log_softmax(dim=1))  # type: ignore[operator]
    mixed = mix(patches, weights)
    mixed.retain_grad()
    (mixed**2).sum().backward()
    assert mixed.grad is not None
    assert logits.grad is not None
    G = torch.einsum("nchw,ndchw->nd", mixed.grad, patches)
    return logits.grad, G, logits.detach().softmax(dim=1), weights.detach()


def through_softmax(u: Tensor, f: Tensor) -> Tensor:
    return f * (u - (f * u).sum(dim=1, keepdim=True))


def test_mix_sums_the_patches() -> None:
    patches = torch.arange(12.0).reshape(2, 3, 1, 1, 2)
    mixed = mix(patches, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))
    assert mixed.tolist() == [[[[1.0, 2.0]]], [[[10.0, 11.0]]]]


def test_mean() -> None:
    gradient, G, f, weights = gradients(mean_weights)
    assert torch.allclose(weights, f)
    assert torch.allclose(gradient, through_softmax(G, f), atol=1e-4)


def test_mode_copies_the_gradient_to_the_probabilities() -> None:
    gradient, G, f, weights = gradients(lambda log_f: mode_weights(log_f, "st"))
    assert weights.tolist() == [[0, 1, 0], [1, 0, 0]], "exactly one-hot, the lowest of a tie"
    assert torch.allclose(gradient, through_softmax(G, f), atol=1e-4)


def test_mode_inverse_survives_a_tiny_probability() -> None:
    gradient, G, f, weights = gradients(lambda log_f: mode_weights(log_f, "st_inv"))
    assert weights.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert torch.allclose(gradient, G - f * G.sum(dim=1, keepdim=True), atol=1e-4)


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_has_the_gradient_of_its_soft_weights(hard: bool) -> None:
    noise = torch.tensor([[0.1, -0.5, 2.5], [0.0, 0.3, 0.2]])
    gradient, G, f, weights = gradients(lambda log_f: gumbel_weights(log_f, tau=0.7, noise_ND=noise, hard=hard))
    y = ((f.log() + noise) / 0.7).softmax(dim=1)
    if hard:
        assert weights.tolist() == torch.nn.functional.one_hot(y.argmax(dim=1), 3).float().tolist()
    else:
        assert torch.allclose(weights, y, atol=1e-6)
    u = through_softmax(G, y) / 0.7  # at log f
    assert torch.allclose(gradient, u - f * u.sum(dim=1, keepdim=True), atol=1e-4)


def test_gumbel_noise_has_its_distribution() -> None:
    noise = gumbel_noise(torch.zeros(100_000, 1), torch.Generator().manual_seed(0))
    assert float(noise.mean()) == pytest.approx(np.euler_gamma, abs=0.02)
    assert float(noise.var()) == pytest.approx(np.pi**2 / 6, rel=0.03)
    again = gumbel_noise(torch.zeros(100_000, 1), torch.Generator().manual_seed(0))
    assert torch.equal(noise, again)


def test_categorical_gives_the_log_probability_of_the_draw() -> None:
    log_f = LOGITS.log_softmax(dim=1)
    weights, log_prob = categorical_weights(log_f, torch.tensor([2, 0]))
    assert weights.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert torch.allclose(log_prob, torch.stack([log_f[0, 2], log_f[1, 0]]))


@pytest.mark.parametrize(
    "weights_of",
    [
        mean_weights,
        lambda values, **kind: mode_weights(values, "st", **kind),
        lambda values, **kind: mode_weights(values, "st_inv", **kind),
        lambda values, **kind: categorical_weights(values, torch.tensor([1, 0]), **kind)[1][:, None],
    ],
)
def test_probabilities_do_as_well_as_their_logarithms(weights_of: Callable[..., Tensor]) -> None:
    f = LOGITS.softmax(dim=1)
    towards = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for logs in (True, False):
        leaf = f.clone().requires_grad_()
        weights = weights_of(leaf.log() if logs else leaf, logs=logs)
        (weights * towards[:, : weights.shape[1]]).sum().backward()
        assert leaf.grad is not None
        found.append((weights.detach(), leaf.grad))
    (weights, gradient), (plain_weights, plain_gradient) = found
    assert torch.allclose(weights, plain_weights) and torch.allclose(gradient, plain_gradient, rtol=1e-4)


@pytest.mark.parametrize("gradient", ["st", "st_inv"])
def test_a_probability_of_0_spoils_no_gradient(gradient: Literal["st", "st_inv"]) -> None:
    """A surer F_theta than float32 can tell: log f and then exp would give nan."""
    for weigh in (
        lambda f: mean_weights(f, logs=False),
        lambda f: mode_weights(f, gradient, logs=False),
        lambda f: categorical_weights(f, torch.tensor([0]), logs=False)[1][:, None],
    ):
        logits = torch.tensor([[0.0, -200.0]], requires_grad=True)
        f = logits.softmax(dim=1)
        assert f.tolist() == [[1.0, 0.0]]
        (weigh(f) * torch.tensor([[1.0, 2.0]])).sum().backward()
        assert logits.grad is not None and bool(logits.grad.isfinite().all())
