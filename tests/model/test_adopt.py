"""A folder of `save_pretrained` becomes a bundle that gives what the network in it gave."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import yaml
from safetensors.torch import load_file, save_file

from foveate.errors import BundleInvalid, OptionInvalid
from foveate.schema import BundleCard
from model.adopt import adopt
from model.bundle import load_bundle, load_networks, verify_bundle

CARD: dict[str, Any] = {
    "name": "roofs",
    "licence": "MIT",
    "patch_size": 64,
    "classes": ["ground", "roof"],
    "input": {"kind": "scene", "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]},
}
SMALL = {"encoder_weights": None, "decoder_channels": (32, 16, 8, 8, 8)}


def saved(folder: Path, network: Any) -> Path:
    """Norms with running statistics of their own, as after training."""
    generator = torch.Generator().manual_seed(5)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5, generator=generator)
    network.eval().save_pretrained(folder)
    return folder


def card_file(directory: Path, **changes: Any) -> Path:
    path = directory / "card.json"
    path.write_text(json.dumps(CARD | changes))
    return path


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("smp") / "unet", smp.Unet("resnet18", classes=2, **SMALL))


@pytest.fixture
def folder(unet: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt; its weights are the same file."""
    copy = tmp_path / "folder"
    copy.mkdir()
    (copy / "config.json").write_bytes((unet / "config.json").read_bytes())
    (copy / "model.safetensors").hardlink_to(unet / "model.safetensors")
    return copy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (lambda: smp.Unet("resnet18", classes=2, **SMALL), {}),
        (
            lambda: smp.Unet(
                "resnet18", encoder_weights=None, classes=2, activation="softmax2d", decoder_attention_type="scse"
            ),
            {},
        ),
        (
            lambda: smp.FPN(
                "tu-tf_efficientnet_lite0", encoder_weights=None, classes=3, in_channels=4, decoder_dropout=0.5
            ),
            {
                "classes": [{"name": "a", "value": 7}, "b", {"name": "c", "color": [1, 2, 3]}],
                "input": {
                    "kind": "scene",
                    "mean": [0.0] * 4,
                    "std": [1.0] * 4,
                    "bands": ["red", "green", "blue", "nir"],
                    "dtype": "uint16",
                    "value_scale": 10_000,
                    "spacing": 10,
                    "spacing_unit": "m",
                    "spacing_range": [5, 20],
                },
            },
        ),
    ],
    ids=["unet", "softmax", "fpn"],
)
def test_the_bundle_forwards_exactly_as_the_network_did(
    tmp_path: Path, make: Callable[[], Any], changes: dict[str, Any]
) -> None:
    network = make()
    folder = saved(tmp_path / "smp", network)
    adopt(folder, card_file(tmp_path, **changes), tmp_path / "bundle")
    assert "network forward" in verify_bundle(tmp_path / "bundle").checks
    bundle = load_bundle(tmp_path / "bundle")
    ours, foveation = load_networks(bundle)
    assert foveation is None
    network.segmentation_head[2] = torch.nn.Identity()  # a softmax there is taken over by Foveate's own
    patches = torch.randn(2, bundle.card.network.in_channels, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(patches), network.eval()(patches))


def test_what_can_be_derived_is(unet: Path, tmp_path: Path) -> None:
    card = adopt(unet, card_file(tmp_path, description="Of roofs."), tmp_path / "bundle").card
    assert (card.network.architecture, card.network.encoder) == ("unet", "resnet18")
    assert card.network.options == {"decoder_channels": [32, 16, 8, 8, 8]}
    assert (card.fovs, card.foveation, card.policy, card.coverage.default) == ([64], None, "fixed:1", "dense")
    assert (card.input.bands, card.input.value_scale) == (["red", "green", "blue"], 255)
    assert [(entry.value, entry.name) for entry in card.classes] == [(0, "ground"), (1, "roof")]
    assert card.classes[0].color != card.classes[1].color
    assert "Of roofs." in (tmp_path / "bundle" / "README.md").read_text()


def test_a_card_in_yaml_gives_the_same_bundle(unet: Path, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD))
    by_yaml = adopt(unet, tmp_path / "card.yaml", tmp_path / "a")
    assert by_yaml.sha256 == adopt(unet, card_file(tmp_path), tmp_path / "b").sha256


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_a_single_logit_becomes_two_classes_with_the_same_probability(tmp_path: Path, activation: str | None) -> None:
    network = smp.Unet("resnet18", classes=1, activation=activation, **SMALL)
    folder = saved(tmp_path / "smp", network)
    bundle = adopt(folder, card_file(tmp_path), tmp_path / "bundle")
    patches = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        probabilities = load_networks(bundle)[0](patches).softmax(dim=1)
        expected = network.eval()(patches) if activation else network.eval()(patches).sigmoid()
    torch.testing.assert_close(probabilities[:, 1:], expected)


def test_without_a_card_the_smallest_one_is_shown_and_it_works(unet: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid) as refused:
        adopt(unet, None, tmp_path / "bundle")
    (tmp_path / "card.json").write_text(refused.value.hint[refused.value.hint.index("{") :])
    card = adopt(unet, tmp_path / "card.json", tmp_path / "bundle").card
    assert isinstance(card, BundleCard)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"licence": None}, "licence"),
        ({"surprise": 1}, "surprise"),
        ({"classes": ["ground"]}, "classes names 1, the network"),
        ({"classes": ["ground", {"name": "roof", "colour": [1, 2, 3]}]}, r"classes\.1\.colour"),
        ({"classes": ["ground", {"name": "roof", "value": 0}]}, "two classes share a value"),
        ({"classes": ["roof", "roof"]}, "two classes share a name"),
        ({"name": "Roofs!"}, "name"),
        ({"input": CARD["input"] | {"mean": [0.5]}}, "bands, mean and std differ"),
        ({"input": CARD["input"] | {"bands": ["red"]}}, r"input\.bands has 1 entries, the network takes 3"),
        ({"input": CARD["input"] | {"dtype": "uint16"}}, r"input\.value_scale is missing"),
        ({"input": CARD["input"] | {"spacing": 0.5}}, "spacing"),
    ],
)
def test_a_card_that_does_not_suit_is_refused(unet: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionInvalid, match=says) as refused:
        adopt(unet, card_file(tmp_path, **changes), tmp_path / "bundle")
    assert "card.json" in refused.value.message
    assert refused.value.hint


def test_a_patch_that_the_network_cannot_take_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "smp", smp.FPN("resnet18", encoder_weights=None, classes=2))
    with pytest.raises(OptionInvalid, match="patch_size 50 is no multiple of 32") as refused:
        adopt(folder, card_file(tmp_path, patch_size=50), tmp_path / "bundle")
    assert refused.value.hint.endswith("to 64")


@pytest.mark.parametrize("text", ["{", "[]", "\udcff", "- a: [", None])
def test_what_is_no_card_is_refused(unet: Path, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / ("card.yaml" if text == "- a: [" else "card.json")
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(OptionInvalid, match="--card"):
        adopt(unet, path, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_model_class": "Unetto"}, "'Unetto'"),
        ({"_model_class": None}, "_model_class"),
        ({"encoder_name": "resnet19"}, "resnet19"),
        ({"encoder_name": 3}, "encoder_name is 3"),
        ({"in_channels": "3"}, "in_channels is '3'"),
        ({"classes": -3}, "classes is -3"),
        ({"classes": True}, "classes is True"),
        ({"decoder_channels": 2_000_000}, "is 2000000, more than"),
        ({"aux_params": {"classes": 3}}, "aux_params"),
        ({"activation": "tanh"}, "'tanh'"),
        ({"activation": "sigmoid"}, "'sigmoid' of 2 classes"),
        ({"decoder_use_norm": {"type": "layernorm"}}, "decoder_use_norm"),
        ({"decoder_use_batchnorm": True}, "decoder_use_batchnorm"),
        ({"decoder_channels": [16, 16, 8, 8, 8]}, r"tensor decoder\."),
    ],
)
def test_a_folder_that_does_not_suit_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(BundleInvalid, match=says) as refused:
        adopt(folder, card_file(tmp_path), tmp_path / "bundle")
    assert refused.value.hint
    assert not (tmp_path / "bundle").exists()


def test_pickles_are_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BundleInvalid, match="such as a pickle, are not read"):
        adopt(folder, card_file(tmp_path), tmp_path / "bundle")


def test_weights_that_are_not_finite_are_named(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.conv1.weight"][0] = torch.nan
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(BundleInvalid, match=r"encoder\.conv1\.weight holds values"):
        adopt(folder, card_file(tmp_path), tmp_path / "bundle")


def test_a_config_that_is_not_json_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(BundleInvalid, match="not JSON"):
        adopt(folder, card_file(tmp_path), tmp_path / "bundle")
