"""Bundles: what is saved comes back, and what lies is refused by name."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foveate.card import CARD_FILE, WEIGHTS_FILE, bundle_digest, read_card
from foveate.errors import BundleInvalid, BundleUnknown
from foveate.schema import BundleCard
from model.bundle import load_bundle, load_networks, save_bundle, verify_bundle
from model.foveation import FoveationModule
from model.networks.build import build_network
from tests.raster.cards import make_card

CARD: dict[str, Any] = make_card(
    name="tiny",
    kind="any",
    spacing=None,
    network={"library": "foveate", "architecture": "fcn", "in_channels": 3},
    patch_size=16,
    fovs=[16, 32, 64],
    foveation={"downsample": 8, "hidden": 24},
    mapping="explicit",
    policy="mode",
    classes=[{"value": 0, "name": "dark", "color": (0, 0, 0)}, {"value": 1, "name": "light", "color": (9, 9, 9)}],
).model_dump(mode="json")


def changed(**changes: Any) -> BundleCard:
    return BundleCard.model_validate_json(json.dumps(CARD | changes))


def written(directory: Path, card: BundleCard, half: bool = True) -> Path:
    torch.manual_seed(1)
    network = build_network(card.network, len(card.classes))
    foveation = None
    if card.foveation is not None:
        foveation = FoveationModule.from_card(card.foveation, card.network.in_channels, len(card.fovs)).state_dict()
    save_bundle(directory, card, network.state_dict(), foveation, readme="# tiny\n", training_yaml="{}\n", half=half)
    return directory


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("bundle") / "tiny", changed())


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "tiny"))


def edit_card(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((directory / CARD_FILE).read_text())
    edit(card)
    (directory / CARD_FILE).write_text(json.dumps(card))


def edit_weights(directory: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / WEIGHTS_FILE)
    edit(tensors)
    save_file(tensors, directory / WEIGHTS_FILE)


def refused(directory: Path) -> str:
    with pytest.raises(BundleInvalid) as caught:
        load_networks(load_bundle(directory))
    assert caught.value.hint
    return caught.value.message


def test_what_is_saved_in_full_precision_comes_back_exactly(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path / "full", changed(), half=False))
    network, foveation = load_networks(bundle)
    torch.manual_seed(1)
    expected = build_network(bundle.card.network, 2).eval()
    patches = torch.randn(2, 3, 16, 16)
    assert torch.equal(network(patches), expected(patches))
    assert foveation is not None
    assert not network.training
    assert not foveation.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_directory_has_a_card_only_once_it_is_a_whole_bundle(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model.bundle.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        written(copy, changed(version="2"))
    with pytest.raises(BundleUnknown):
        load_bundle(copy)
    monkeypatch.undo()
    assert "files" in verify_bundle(written(copy, changed(version="2"))).checks


def test_half_precision_is_widened(sound: Path) -> None:
    on_disk = load_file(sound / WEIGHTS_FILE)
    assert on_disk["network.head.weight"].dtype == torch.float16
    assert on_disk["foveation.norm1.running_var"].dtype == torch.float32
    network, _ = load_networks(load_bundle(sound))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_a_bundle_without_foveation(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path / "plain", changed(foveation=None, policy="fixed:1")))
    assert load_networks(bundle)[1] is None
    assert verify_bundle(bundle.directory).foveation_parameters == 0


@pytest.mark.parametrize("architecture", ["hrnet_w18", "upernet_resnet50"])
def test_our_own_networks_make_bundles(tmp_path: Path, architecture: str) -> None:
    options = {"width": 8} if architecture == "upernet_resnet50" else {}
    network = {"library": "foveate", "architecture": architecture, "in_channels": 3, "options": options}
    report = verify_bundle(written(tmp_path / "bundle", changed(network=network)))
    assert report.network_parameters > 9_000_000


def test_verify_reports_the_sizes(sound: Path) -> None:
    report = verify_bundle(sound)
    assert report.foveation_parameters == 6582, "the paper's count for three fields of view"
    assert report.files[WEIGHTS_FILE] == (sound / WEIGHTS_FILE).stat().st_size
    assert report.sha256 == load_bundle(sound).sha256 == bundle_digest(sound)


def test_instance_norm_takes_a_single_cell(tmp_path: Path) -> None:
    card = changed(foveation={"downsample": 8, "hidden": 24, "norm": "instance"})
    assert "F_theta forward" in verify_bundle(written(tmp_path / "instance", card)).checks


def test_the_digest_follows_both_files(copy: Path) -> None:
    before = bundle_digest(copy)
    (copy / "README.md").write_text("another text")
    assert bundle_digest(copy) == before
    edit_weights(copy, lambda tensors: tensors["network.head.bias"].add_(1))
    weights_changed = bundle_digest(copy)
    edit_card(copy, lambda card: card.update(version="2"))
    assert len({before, weights_changed, bundle_digest(copy)}) == 3


def test_a_card_is_read_without_torch(sound: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from foveate.card import read_card;"
        f"print(read_card(Path({str(sound)!r})).name, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tiny", "False", "False"]


def test_networks_of_our_own_are_loaded_without_torchs_compiler(sound: Path) -> None:
    """A hundred megabytes, which laying networks out without memory once took."""
    code = (
        "import sys, torch; from pathlib import Path; from model.bundle import load_bundle; "
        "from model.predictor import Predictor;"
        f"Predictor(load_bundle(Path({str(sound)!r})), torch.device('cpu')); print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"format": 1, "format": 1}', "'format' occurs twice"),
        ('{"format": NaN}', "NaN"),
        ('{"format": -Infinity}', "Infinity"),
        ('{"format": 1e999}', "1e999"),
        ('{"format": 1', "strict JSON"),
        ("[" * 100_000, "strict JSON"),
        ("[]", "bundle.json"),
        (" " * (1 << 20) + "{}", "more than 1048576"),
        ("\udcff", "strict JSON"),
    ],
)
def test_text_that_is_no_strict_json_is_refused(copy: Path, text: str, says: str) -> None:
    (copy / CARD_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert says in refused(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"surprise": 1}, "surprise"),
        ({"patch_size": "16"}, "patch_size"),
        ({"format": 2}, "format"),
        ({"policy": "mean"}, "mean"),
        ({"policy": "fixed:4"}, "fixed:4"),
        ({"policy": "sometimes"}, "sometimes"),
        ({"foveation": None}, "needs an F_theta"),
        ({"foveation": {"downsample": 8, "hidden": 10**9}}, "foveation.hidden is 1000000000"),
        ({"network": CARD["network"] | {"options": {"width": 10**9}}}, "network.options.width"),
        ({"mapping": "implicit", "coverage": {"default": "planned"}}, "planned"),
        ({"fovs": [16, 24, 64], "coverage": {"default": "refined"}}, "integer ratios"),
        ({"fovs": [16], "policy": "fixed:1", "coverage": {"default": "refined"}}, "several fovs"),
        ({"fovs": [16, 32, 64], "coverage": {"default": "refined"}}, "not supported by coverage.curve"),
    ],
)
def test_a_card_that_breaks_the_contract_is_refused(copy: Path, change: dict[str, Any], says: str) -> None:
    edit_card(copy, lambda card: card.update(change))
    assert says in refused(copy)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda tensors: tensors.pop("network.head.bias"), "lacks tensor network.head.bias"),
        (lambda tensors: tensors.update({"network.extra": torch.zeros(1)}), "superfluous tensor network.extra"),
        (lambda tensors: tensors.update({"network.head.bias": torch.zeros(3)}), "network.head.bias has shape (3,)"),
        (lambda tensors: tensors["network.head.bias"].fill_(torch.nan), "network.head.bias holds values"),
        (lambda tensors: tensors["foveation.squeeze.weight"][0].fill_(torch.inf), "foveation.squeeze.weight holds"),
        (lambda tensors: tensors.update({"network.head.bias": torch.zeros(2).int()}), "network.head.bias is of type"),
        (lambda tensors: tensors.update({"network.big": torch.zeros(1 << 20)}), "at most"),
    ],
)
def test_weights_that_lie_are_refused(copy: Path, edit: Callable[[dict[str, torch.Tensor]], object], says: str) -> None:
    edit_weights(copy, edit)
    assert says in refused(copy)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickled", b"\xff" * 8 + b"{}", (20).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_safetensors_is_refused(copy: Path, content: bytes) -> None:
    (copy / WEIGHTS_FILE).write_bytes(content)
    assert "cannot be read" in refused(copy)


def test_a_truncated_file_is_refused(copy: Path) -> None:
    content = (copy / WEIGHTS_FILE).read_bytes()
    (copy / WEIGHTS_FILE).write_bytes(content[:-5])
    assert "cannot be read" in refused(copy)


HEAD = "network.head.bias"
"""Two numbers in float32: 8 bytes."""


@pytest.mark.parametrize(
    "lie",
    [
        lambda header: header[HEAD].update(data_offsets=[0, 4]),
        lambda header: header[HEAD].update(data_offsets=[8, 0]),
        lambda header: header[HEAD].update(data_offsets=[1 << 40, (1 << 40) + 8]),
        lambda header: header[HEAD].update(data_offsets=[-8, 0]),
        lambda header: header[HEAD].update(data_offsets=header["network.body.0.bias"]["data_offsets"]),
        lambda header: header[HEAD].update(shape=[1 << 31, 1 << 31, 1 << 31]),
        lambda header: header[HEAD].update(shape=[4]),
        lambda header: header[HEAD].update(shape=[-2]),
        lambda header: header[HEAD].update(dtype="F64"),
        lambda header: header[HEAD].update(dtype="F17"),
        lambda header: header[HEAD].pop("dtype"),
        lambda header: header.update({HEAD: [1, 2]}),
    ],
    ids=[
        "short",
        "reversed",
        "beyond the end",
        "negative",
        "overlap",
        "overflow",
        "more numbers",
        "negative shape",
        "wider type",
        "no type",
        "type missing",
        "no object",
    ],
)
def test_a_header_that_lies_is_refused(copy: Path, lie: Callable[[dict[str, Any]], object]) -> None:
    content = (copy / WEIGHTS_FILE).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    lie(header)
    text = json.dumps(header).encode()
    (copy / WEIGHTS_FILE).write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    said = refused(copy)
    assert WEIGHTS_FILE in said
    assert "cannot be read" in said


def test_a_lie_that_keeps_the_sizes_is_refused_by_tensor(copy: Path) -> None:
    """The same bytes read as another type, or in another shape, pass every check of the format itself."""
    content = (copy / WEIGHTS_FILE).read_bytes()
    for before, after, says in (
        (b'"dtype":"F32","shape":[2]', b'"dtype":"I32","shape":[2]', f"{HEAD} is of type I32"),
        (b'"shape":[2,16,1,1]', b'"shape":[16,2,1,1]', "network.head.weight has shape (16, 2, 1, 1)"),
    ):
        assert content.count(before) == 1
        (copy / WEIGHTS_FILE).write_bytes(content.replace(before, after))
        assert says in refused(copy)


@pytest.mark.parametrize("length", [1 << 20, 200_000_000, 1 << 62])
def test_a_header_beyond_the_file_is_refused(copy: Path, length: int) -> None:
    content = (copy / WEIGHTS_FILE).read_bytes()
    (copy / WEIGHTS_FILE).write_bytes(length.to_bytes(8, "little") + content[8:])
    assert "cannot be read" in refused(copy)


def test_a_huge_header_is_refused_unread(copy: Path) -> None:
    content = (copy / WEIGHTS_FILE).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end] + b" " * (4 << 20)
    (copy / WEIGHTS_FILE).write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
    assert "at most" in refused(copy)


def test_a_card_that_asks_for_far_more_memory_than_its_weights_fill_is_refused(copy: Path) -> None:
    edit_card(copy, lambda card: card["network"].update(options={"width": 8192}))
    assert "take at least 12" in refused(copy)


def test_weights_of_another_card_are_refused(copy: Path) -> None:
    edit_card(copy, lambda card: card["classes"].append({"value": 2, "name": "more", "color": [1, 2, 3]}))
    assert "network.head" in refused(copy)


def test_links_and_other_files_are_refused(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(copy / WEIGHTS_FILE, outside)
    (copy / WEIGHTS_FILE).symlink_to(outside)
    assert "outside the bundle" in refused(copy)
    (copy / WEIGHTS_FILE).unlink()
    shutil.move(outside, copy / WEIGHTS_FILE)
    (copy / "weights.pkl").write_bytes(b"")
    with pytest.raises(BundleInvalid, match=r"weights\.pkl does not belong"):
        verify_bundle(copy)
    (copy / "weights.pkl").unlink()
    (copy / "README.md").unlink()
    (copy / "README.md").symlink_to("/etc/hostname")
    with pytest.raises(BundleInvalid, match="outside the bundle"):
        verify_bundle(copy)


def test_a_directory_without_a_bundle(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(BundleUnknown):
            read_card(path)


def test_a_network_that_explodes_is_found_by_verify(copy: Path) -> None:
    edit_weights(copy, lambda tensors: [t.fill_(6e4) for name, t in tensors.items() if t.ndim == 4])
    edit_weights(copy, lambda tensors: tensors["network.body.0.bias"].fill_(3e38))
    with pytest.raises(BundleInvalid, match="not finite"):
        verify_bundle(copy)


@pytest.mark.parametrize(("value", "half"), [(torch.nan, False), (1e6, True)])
def test_values_that_cannot_be_stored_are_refused(tmp_path: Path, value: float, half: bool) -> None:
    card = changed(foveation=None, policy="fixed:1")
    state = build_network(card.network, 2).state_dict()
    state["head.weight"][0] = value
    with pytest.raises(BundleInvalid, match=r"head\.weight"):
        save_bundle(tmp_path, card, state, None, readme="", training_yaml="", half=half)


def test_a_card_that_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    card = changed(foveation=None, policy="fixed:1").model_copy(update={"provenance": {"data": object()}})
    state = build_network(card.network, 2).state_dict()
    with pytest.raises(BundleInvalid, match="JSON"):
        save_bundle(tmp_path, card, state, None, readme="", training_yaml="")
