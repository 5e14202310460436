"""Losses: class weights, ignored pixels, and the exact gradient of the expected loss."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.datasets.classes import IGNORE
from model.training.losses import at_stride, class_weights, dice_loss, expected_loss, patch_losses, window_losses


def test_weights_have_mean_one_over_pixels_and_favour_the_rare() -> None:
    shares = [0.7, 0.2, 0.1, 0.0]
    weights = class_weights(shares, 0.35)
    assert float((weights * torch.tensor(shares)).sum()) == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(7**0.35)
    assert weights[3] == 0
    assert class_weights([0.5, 0.5], 0).tolist() == [1, 1]


def quotient(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    sums, counts = patch_losses(logits.log_softmax(dim=1), labels, weights)
    return sums.sum() / counts.sum().clamp_min(1)


def test_ignored_pixels_neither_count_nor_pull() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (1, 4, 4))
    labels[:, :2] = IGNORE
    loss = quotient(logits, labels, torch.ones(3))
    assert torch.allclose(loss, functional.cross_entropy(logits[:, :, 2:], labels[:, 2:]))
    torch.autograd.backward(loss)
    assert logits.grad is not None and logits.grad[:, :, :2].abs().max() == 0


@pytest.mark.parametrize("loss", [lambda a, b: quotient(a, b, torch.ones(2)), dice_loss], ids=["nll", "dice"])
def test_a_batch_without_labels_costs_nothing(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    cost = loss(logits, torch.full((1, 4, 4), IGNORE))
    torch.autograd.backward(cost)
    assert cost.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_dice_is_that_of_the_classes_that_are_shown() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, :2] = 1
    labels[:, 3] = IGNORE
    sure = functional.one_hot(labels.where(labels != IGNORE, 2), 3).movedim(-1, 1) * 50.0
    assert dice_loss(sure, labels).item() == pytest.approx(0, abs=1e-6)
    # Class 1 everywhere: 8 of the 12 labelled pixels are right; class 2 is nowhere and does not count.
    wrong = functional.one_hot(torch.ones_like(labels), 3).movedim(-1, 1) * 50.0
    assert dice_loss(wrong, labels).item() == pytest.approx(1 - ((2 * 8 + 1) / (12 + 8 + 1) + 1 / 5) / 2, abs=1e-5)


def test_labels_at_a_stride_are_those_in_the_middle() -> None:
    labels = torch.arange(64).view(1, 8, 8)
    assert at_stride(labels, 4).tolist() == [[[18, 22], [50, 54]]]
    assert torch.equal(at_stride(labels, 1), labels)


def test_window_losses_are_those_of_each_window_alone() -> None:
    scores = torch.rand(3, 4, 5, 5).softmax(dim=1)
    labels = torch.randint(0, 4, (3, 5, 5))
    labels[1, 0] = IGNORE
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    losses, labelled = window_losses(scores, labels, weights)
    assert labelled.tolist() == pytest.approx([1, 0.8, 1])
    for n in range(3):
        alone = quotient(scores[n : n + 1].log(), labels[n : n + 1], weights)
        assert losses[n].item() == pytest.approx(alone.item(), rel=1e-5)


def test_a_certain_mistake_costs_a_bounded_amount() -> None:
    scores = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    losses, _ = window_losses(scores, torch.zeros(1, 1, 1, dtype=torch.long), torch.ones(2))
    assert losses.item() == pytest.approx(13.8155, rel=1e-4)


def test_expected_loss_has_the_losses_as_its_gradient() -> None:
    distribution = torch.rand(6, 3).softmax(dim=1).requires_grad_()
    losses, importance = torch.rand(6, 3), torch.rand(6)
    torch.autograd.backward(expected_loss(distribution, losses, importance))
    assert distribution.grad is not None
    assert torch.allclose(distribution.grad, losses * importance[:, None] / importance.sum())
