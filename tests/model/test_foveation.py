"""F_theta: size, initial values, variants, and the names of the authors' checkpoints."""

import math

import pytest
import torch
from torch import nn

from foveate.schema import FoveationCard
from model.foveation import AUTHORS_NAMES, REACH, FoveationModule, from_authors


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("n_fovs", "count"), [(5, 17_450), (3, 6_582)])
def test_the_papers_parameter_counts(n_fovs: int, count: int) -> None:
    assert parameters(FoveationModule(3, n_fovs)) == count


def test_initial_values() -> None:
    torch.manual_seed(0)
    module = FoveationModule(3, 5, hidden=200)
    for layer in (module.expand1, module.expand2, module.squeeze):
        expected = math.sqrt(2 / (9 * layer.in_channels))
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)
        assert layer.bias is None
    for norm in (module.norm1, module.norm2, module.norm3):
        assert isinstance(norm, nn.BatchNorm2d)
        assert torch.all(norm.weight == 1)
        assert torch.all(norm.bias == 1e-4)
        assert (norm.eps, norm.momentum) == (1e-5, 0.1)


def test_a_card_gives_width_activation_and_norm() -> None:
    card = FoveationCard(downsample=16, hidden=10, activation="leaky_relu", norm="bn1")
    module = FoveationModule.from_card(card, 4, 3)
    assert module.expand1.weight.shape == (10, 4, 3, 3)
    assert module.squeeze.weight.shape == (3, 10, 3, 3)
    assert isinstance(module.activation, nn.LeakyReLU)
    assert isinstance(module.norm1, nn.BatchNorm2d)
    assert isinstance(module.norm2, nn.Identity)
    assert isinstance(module.norm3, nn.Identity)


@pytest.mark.parametrize("norm", ["bn", "bn1", "instance", "no_normalise"])
@pytest.mark.parametrize("deep_fov", [0, 1, 2])
def test_every_variant_gives_a_distribution_of_the_images_size(norm: str, deep_fov: int) -> None:
    torch.manual_seed(0)
    module = FoveationModule(3, 4, norm=norm, deep_fov=deep_fov).eval()  # type: ignore[arg-type]
    image = torch.randn(2, 3, 5, 7)
    probabilities = module(image)
    assert probabilities.shape == (2, 4, 5, 7)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(2, 5, 7))
    module.log_probabilities = True
    assert torch.allclose(module(image), probabilities.log(), atol=1e-6)


@pytest.mark.parametrize("deep_fov", [0, 1, 2])
def test_the_reach_is_what_a_location_depends_on(deep_fov: int) -> None:
    torch.manual_seed(0)
    module = FoveationModule(3, 4, activation="leaky_relu", deep_fov=deep_fov).double().eval()  # type: ignore[arg-type]
    image = torch.randn(1, 3, 21, 21, dtype=torch.float64, requires_grad=True)
    module(image)[0, 0, 10, 10].backward()
    assert image.grad is not None
    rows, columns = image.grad[0].abs().sum(dim=0).nonzero().unbind(dim=1)
    for places in (rows, columns):
        assert (10 - int(places.min()), int(places.max()) - 10) == (module.reach, module.reach)
    if not deep_fov:
        assert module.reach == REACH


def test_the_activations_differ_where_they_should() -> None:
    values = torch.tensor([-10.0, 3.0, 10.0])
    expected = {"relu6": [0.0, 3.0, 6.0], "relu": [0.0, 3.0, 10.0], "leaky_relu": [-0.1, 3.0, 10.0]}
    for name, wanted in expected.items():
        activation = FoveationModule(1, 2, activation=name).activation  # type: ignore[arg-type]
        assert torch.allclose(activation(values), torch.tensor(wanted))


def test_an_authors_checkpoint_is_renamed() -> None:
    torch.manual_seed(0)
    source = FoveationModule(3, 2, deep_fov=1)
    ours = {short: name for name, short in AUTHORS_NAMES.items()}
    theirs = {}
    for name, tensor in source.state_dict().items():
        layer, leaf = name.split(".")
        if leaf != "num_batches_tracked":
            theirs[f"{ours[layer]}.{leaf}"] = tensor
    target = FoveationModule(3, 2, deep_fov=1)
    target.load_state_dict(from_authors(theirs, target))
    image = torch.randn(1, 3, 4, 4)
    assert torch.equal(source.eval()(image), target.eval()(image))


def test_a_single_cell_under_instance_norm() -> None:
    module = FoveationModule(3, 2, norm="instance")
    assert torch.allclose(module(torch.randn(1, 3, 1, 1)).sum(), torch.ones(()))


@pytest.mark.parametrize("deep_fov", [0, 1, 2])
def test_a_part_that_reaches_over_the_border_sees_what_the_whole_image_shows_there(deep_fov: int) -> None:
    """Zero at every layer, not at the first alone: else every field of view at a border is chosen by accident."""
    torch.manual_seed(0)
    module = FoveationModule(3, 4, deep_fov=deep_fov)  # type: ignore[arg-type]
    module(torch.randn(8, 3, 20, 20))  # running statistics of its own
    module.eval()
    image = torch.randn(1, 3, 12, 15)
    around = nn.functional.pad(image, [9] * 4, value=0.7)
    inside = nn.functional.pad(torch.ones(1, 1, 12, 15), [9] * 4)
    whole = module(image)
    for row, column in ((0, 0), (0, 7), (5, 14), (11, 14)):
        part = slice(row, row + 19), slice(column, column + 19)
        seen = module(around[:, :, *part], inside[:, :, *part])[0, :, 9, 9]
        assert torch.allclose(seen, whole[0, :, row, column], atol=1e-6)
