"""Networks by name: shapes, the scale channel, and refusals that name what is possible."""

import pytest
import torch

from foveate.errors import BundleInvalid
from foveate.schema import NetworkCard
from model.networks.build import build_network, input_channels


@pytest.mark.parametrize("scale_channel", [False, True])
@pytest.mark.parametrize(
    ("library", "architecture", "encoder", "options"),
    [
        ("foveate", "linear", None, {}),
        ("foveate", "fcn", None, {"width": 4}),
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
        ({"library": "foveate", "architecture": "unet"}, "'unet'", "fcn, linear"),
        ({"library": "foveate", "architecture": "fcn", "encoder": "resnet18"}, "'resnet18'", "null"),
        ({"library": "foveate", "architecture": "fcn", "options": {"wdth": 3}}, "wdth", "arguments"),
        ({"library": "smp", "architecture": "unt", "encoder": "resnet18"}, "'unt'", "unet"),
        ({"library": "smp", "architecture": "unet"}, "encoder is missing", "resnet18"),
        ({"library": "smp", "architecture": "unet", "encoder": "resnet19"}, "'resnet19'", "resnet18"),
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
