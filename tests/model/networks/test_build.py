"""Networks by name: shapes, the scale channel, and refusals that name what is possible."""

import pytest
import torch
from torch import nn

from foveate.errors import BundleInvalid
from foveate.schema import NetworkCard
from model.networks.build import build_network, input_channels


@pytest.mark.parametrize("scale_channel", [False, True])
@pytest.mark.parametrize(
    ("library", "architecture", "encoder", "options"),
    [
        ("foveate", "linear", None, {}),
        ("foveate", "fcn", None, {"width": 4}),
        ("foveate", "hrnet_w18", None, {}),
        ("foveate", "upernet_resnet50", None, {"width": 16}),
        ("smp", "unet", "resnet18", {"decoder_channels": [32, 16, 8, 8, 8]}),
        ("smp", "fpn", "tu-tf_efficientnet_lite0", {"decoder_pyramid_channels": 16}),
    ],
)
def test_logits_have_the_size_of_the_patch(
    library: str, architecture: str, encoder: str | None, options: dict[str, int | list[int]], scale_channel: bool
) -> None:
    card = NetworkCard.model_validate(
        {
            "library": library,
            "architecture": architecture,
            "encoder": encoder,
            "in_channels": 4,
            "scale_channel": scale_channel,
            "options": options,
        }
    )
    network = build_network(card, 7).eval()
    with torch.inference_mode():
        logits = network(torch.zeros(2, input_channels(card), 64, 96))
    assert logits.shape == (2, 7, 64, 96)
    assert input_channels(card) == 4 + scale_channel


def test_linear_with_an_identity_kernel_gives_its_input_back() -> None:
    network = build_network(NetworkCard(library="foveate", architecture="linear", in_channels=3), 3)
    network.load_state_dict({"head.weight": torch.eye(3)[:, :, None, None], "head.bias": torch.zeros(3)})
    patch = torch.rand(1, 3, 8, 8)
    assert torch.equal(network(patch), patch)


@pytest.mark.parametrize(
    ("card", "message", "hint"),
    [
        (
            {"library": "foveate", "architecture": "unet"},
            "'unet'",
            "fcn, hrnet_w18, hrnet_w48, linear",
        ),
        ({"library": "foveate", "architecture": "fcn", "encoder": "resnet18"}, "'resnet18'", "null"),
        ({"library": "foveate", "architecture": "fcn", "options": {"wdth": 3}}, "wdth", "arguments"),
        ({"library": "foveate", "architecture": "hrnet_w48", "options": {"width": 8}}, "hrnet_w48", "arguments"),
        ({"library": "foveate", "architecture": "upernet_resnet50", "options": {"width": -1}}, "-1", "arguments"),
        ({"library": "smp", "architecture": "unt", "encoder": "resnet18"}, "'unt'", "unet"),
        ({"library": "smp", "architecture": "unet"}, "encoder is missing", "resnet18"),
        ({"library": "smp", "architecture": "unet", "encoder": "resnet19"}, "'resnet19'", "resnet18"),
        ({"library": "smp", "architecture": "unet", "encoder": "tu-hf-hub:x/y"}, "'tu-hf-hub:x/y'", "never fetched"),
        ({"library": "smp", "architecture": "unet", "encoder": "tu-resnet19"}, "'tu-resnet19'", "timm"),
        ({"library": "smp", "architecture": "unet", "encoder": "resnet18", "options": {"wdth": 3}}, "wdth", "decoder"),
        (
            {
                "library": "smp",
                "architecture": "unet",
                "encoder": "resnet18",
                "options": {"encoder_weights": "imagenet"},
            },
            "encoder_weights",
            "decoder_channels",
        ),
        (
            {"library": "smp", "architecture": "unet", "encoder": "resnet18", "options": {"decoder_channels": [8, 8]}},
            "decoder_channels",
            "arguments",
        ),
    ],
)
def test_what_no_library_knows_is_refused_by_name(card: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(BundleInvalid, match=message) as refused:
        build_network(NetworkCard.model_validate({"in_channels": 3, **card}), 2)
    assert hint in refused.value.hint


def built(architecture: str, classes: int, **options: int) -> nn.Module:
    card = NetworkCard(library="foveate", architecture=architecture, in_channels=3, options=dict(options))
    return build_network(card, classes)


def parameters(network: nn.Module, part: str) -> int:
    return sum(parameter.numel() for parameter in network.get_submodule(part).parameters())


def test_the_papers_networks_have_the_specified_numbers_of_parameters() -> None:
    """Foveation-method.md, section 7."""
    with torch.device("meta"):
        hrnet, upernet = built("hrnet_w48", 19), built("upernet_resnet50", 6)
    assert (parameters(hrnet, "encoder"), parameters(hrnet, "head")) == (65_325_120, 1_170_199)
    assert (parameters(upernet, "encoder"), parameters(upernet, "decoder")) == (23_631_808, 40_516_614)


def test_the_pyramid_of_hrnet_w48_has_720_channels() -> None:
    with torch.device("meta"):
        network = built("hrnet_w48", 19)
        assert network.get_submodule("encoder")(torch.zeros(1, 3, 64, 64)).shape == (1, 720, 16, 16)


@pytest.mark.parametrize(("architecture", "options"), [("hrnet_w18", {}), ("upernet_resnet50", {"width": 8})])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 45), (33, 100)])
def test_training_is_at_stride_4_and_evaluation_enlarges_its_logits(
    architecture: str, options: dict[str, int], height: int, width: int
) -> None:
    network = built(architecture, 5, **options)
    patches = torch.randn(2, 3, height, width)
    with torch.inference_mode():
        coarse = network.train()(patches)
        for norm in network.modules():
            norm.training = isinstance(norm, nn.BatchNorm2d)  # the batch's statistics again, but the mode of evaluation
        fine = network(patches)
    assert coarse.shape == (2, 5, -(-height // 4), -(-width // 4))
    expected = nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    torch.testing.assert_close(fine, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("architecture", "options"), [("hrnet_w18", {}), ("upernet_resnet50", {"width": 8})])
def test_every_parameter_of_our_networks_learns(architecture: str, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    network = built(architecture, 3, **options)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_norms_and_first_weights_are_the_specified_ones() -> None:
    hrnet, upernet = built("hrnet_w18", 2), built("upernet_resnet50", 2, width=64)
    for network, part, momentum, bias in (
        (hrnet, "encoder", 0.1, 0.0),
        (hrnet, "head", 0.001, 1e-4),
        (upernet, "encoder", 0.001, 0.0),
        (upernet, "decoder", 0.001, 1e-4),
    ):
        norms = [module for module in network.get_submodule(part).modules() if isinstance(module, nn.BatchNorm2d)]
        assert {(norm.momentum, norm.eps) for norm in norms} == {(momentum, 1e-5)}
        assert all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in norms)
        assert all(torch.equal(norm.bias, torch.full_like(norm.bias, bias)) for norm in norms)
    kernel = upernet.get_parameter("decoder.bottleneck.0.weight")
    assert float(kernel.detach().std()) == pytest.approx((2 / (9 * kernel.shape[1])) ** 0.5, rel=0.01)
