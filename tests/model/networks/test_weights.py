"""ImageNet weights for the encoder: every tensor lands, and the whole network still tells a cat from a cup."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps

from foveate.schema import NetworkCard
from model.networks.build import build_network
from model.networks.weights import LITE0_ENCODER, load_imagenet_lite0, read_timm_weights
from tests.shared import DATA

PHOTOS = DATA / "photos"


def lite0(in_channels: int) -> torch.nn.Module:
    card = NetworkCard(
        library="smp",
        architecture="fpn",
        encoder=LITE0_ENCODER,
        in_channels=in_channels,
        options={"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32},
    )
    return build_network(card, 2).get_submodule("encoder")


def test_every_tensor_of_the_encoder_is_loaded() -> None:
    encoder = lite0(3)
    fresh = {name: value.clone() for name, value in encoder.state_dict().items()}
    load_imagenet_lite0(encoder)
    for name, value in encoder.state_dict().items():
        if name.endswith((".weight", "running_mean", "running_var")):
            assert not torch.equal(value, fresh[name]), name


def test_bands_beyond_colour_change_nothing_at_first() -> None:
    three, four = lite0(3), lite0(4)
    for encoder in (three, four):
        load_imagenet_lite0(encoder)
        encoder.eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features = zip(three(image)[1:], four(torch.cat([image, torch.randn(1, 1, 64, 64)], 1))[1:], strict=True)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in features)


def test_another_encoder_is_refused() -> None:
    card = NetworkCard(library="smp", architecture="unet", encoder="resnet18", in_channels=3)
    with pytest.raises(ValueError, match=LITE0_ENCODER):
        load_imagenet_lite0(build_network(card, 2).get_submodule("encoder"))


def test_the_names_are_mapped_rightly() -> None:
    """The photograph shows a column of water: ImageNet's class 974, geyser. One swapped layer would not find it."""
    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    classifier.load_state_dict({name.removeprefix("model."): value for name, value in read_timm_weights().items()})
    photograph = ImageOps.fit(ImageOps.exif_transpose(Image.open(PHOTOS / "Portrait_8.jpg")), (224, 224))
    image = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        assert classifier(image).softmax(dim=1)[0, 974] > 0.5
