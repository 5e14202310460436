"""Training from end to end on invented pictures: it learns, goes on where it stopped, and writes a sound bundle."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch
import yaml

from foveate.cli import run
from foveate.errors import OptionInvalid
from model.bundle import load_bundle, load_networks, verify_bundle
from model.datasets.patches import PatchSampler, class_shares, load_images
from model.networks.build import build_network
from model.training.config import TrainConfig, read_config
from model.training.fit import Checkpoints, fit_network
from model.training.fit_foveation import Measured, fit_foveation
from model.training.losses import class_weights
from tests.model.training.recipes import recipe, write_pictures, write_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path)
    return tmp_path


def test_a_recipe_becomes_a_bundle_that_has_learnt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(folder)
    assert run(["train", str(path), "--json"]) == 0
    captured = capsys.readouterr()
    scores = json.loads(captured.out)["scores"]["policies"]
    assert scores["fixed:1"]["miou"] > 0.8
    assert set(scores) == {"mode", "fixed:1", "fixed:2"}

    report = verify_bundle(folder / "bundle")
    assert report.foveation_parameters > 0
    card = load_bundle(folder / "bundle").card
    assert card.provenance["scores"]["policies"] == scores
    assert card.provenance["command"] == f"foveate train {path}"
    assert (folder / "bundle/training.yaml").read_text() == path.read_text()
    assert f"{100 * scores['mode']['miou']:.1f}" in (folder / "bundle/README.md").read_text()


def test_the_same_command_again_gives_the_same_weights_and_keeps_what_was_written_by_hand(folder: Path) -> None:
    path = write_recipe(folder)
    assert run(["train", str(path)]) == 0
    weights = (folder / "bundle/weights.safetensors").read_bytes()
    readme = folder / "bundle/README.md"
    readme.write_text(readme.read_text() + "\nA sentence by hand.\n")
    assert run(["train", str(path)]) == 0
    assert (folder / "bundle/weights.safetensors").read_bytes() == weights
    assert readme.read_text().endswith("A sentence by hand.\n") and readme.read_text().count("| mode |") == 1


class _Interrupted(Exception):
    pass


class _StopsAfter(PatchSampler):
    stop_at: int

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if step == self.stop_at:
            raise _Interrupted
        return super().batch(step)


def test_an_interrupted_run_goes_on_to_the_same_state(folder: Path) -> None:
    config = TrainConfig.model_validate(recipe(folder))
    images = load_images(config.data, config.data.train, config.data.holdout)
    weights = class_weights(class_shares(images, 2), 0.35)

    def fit(name: str, stop_at: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = build_network(config.bundle.network, 2)
        sampler = _StopsAfter(images, config.bundle, config.network, config.augmentation, config.seed)
        sampler.stop_at = stop_at
        fit_network(network, sampler, weights, Checkpoints(folder / name, minutes=0))
        return network.state_dict()

    unbroken = fit("unbroken.pt", -1)
    with pytest.raises(_Interrupted):
        fit("broken.pt", 17)
    resumed = fit("broken.pt", -1)
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_the_loss_falls_and_the_log_says_how_long_it_takes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "model")
    config = TrainConfig.model_validate(recipe(folder))
    images = load_images(config.data, config.data.train, config.data.holdout)
    sampler = PatchSampler(images, config.bundle, config.network, config.augmentation, config.seed)
    torch.manual_seed(0)
    network = build_network(config.bundle.network, 2)
    fit_network(network, sampler, torch.ones(2), Checkpoints(folder / "network.pt", 5))
    found = re.search(r"step 40 of 40, loss (\d\.\d+), 0 min 00 s left", caplog.text)
    assert found is not None and float(found[1]) < 0.5  # 0.69 is guessing


def test_f_theta_learns_to_choose_the_cheaper_field_of_view(folder: Path) -> None:
    """Where the thumbnail is bright the second field of view costs less, elsewhere the first."""
    config = TrainConfig.model_validate(recipe(folder))
    bright = torch.arange(200) % 2 == 1
    level = torch.where(bright, 0.8, -0.8)[:, None, None, None]
    losses = torch.where(bright[:, None], torch.tensor([1.0, 0.2]), torch.tensor([0.3, 0.9]))
    measured = Measured(level + 0.1 * torch.randn(200, 3, 15, 15), losses, torch.ones(200))
    module = fit_foveation(measured, config)
    chosen = module(measured.glimpses)[:, :, 7, 7].argmax(dim=1)
    assert torch.equal(chosen, bright.long())


def test_f_theta_is_in_the_bundle_as_trained(folder: Path) -> None:
    assert run(["train", str(write_recipe(folder))]) == 0
    _, foveation = load_networks(load_bundle(folder / "bundle"))
    assert foveation is not None and not foveation.training
    with torch.inference_mode():
        distribution = foveation(torch.randn(1, 3, 9, 9))
    assert distribution.shape == (1, 2, 9, 9) and distribution.std() > 0


@pytest.mark.parametrize(
    ("section", "change", "named"),
    [
        ("network", {"fov_shares": [1.0]}, "fov_shares"),
        ("network", {"fov_shares": [0.5, 0.4]}, "add up to 0.9"),
        ("network", {"steps": 0}, "network.steps"),
        ("network", {"stpes": 4}, "network.stpes"),
        ("bundle", {"mapping": "implicit"}, "explicit"),
        ("bundle", {"foveation": None}, "foveation is null"),
        ("data", {"labels": [{"low": 0, "high": 1, "value": 7}]}, "2 classes"),
    ],
)
def test_a_wrong_recipe_is_refused_by_field(folder: Path, section: str, change: dict[str, object], named: str) -> None:
    entries = recipe(folder)
    path = write_recipe(folder, **{section: entries[section] | change})
    with pytest.raises(OptionInvalid, match=re.escape(named)):
        read_config(path)


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(OptionInvalid, match=r"recipe\.yaml"):
        read_config(path)


def test_a_missing_recipe_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_wrong_bands_are_refused_before_any_work(folder: Path) -> None:
    entries = recipe(folder)["bundle"]
    grey = {**entries["input"], "bands": ["gray"], "mean": [0.5], "std": [0.5]}
    bundle = {**entries, "input": grey, "network": {**entries["network"], "in_channels": 1}}
    path = write_recipe(folder, bundle=bundle)
    assert run(["train", str(path)]) == 2
    assert not (folder / "bundle").exists()


def test_encoder_weights_need_the_encoder_that_they_are_for(folder: Path) -> None:
    entries = recipe(folder)["network"]
    path = write_recipe(folder, network={**entries, "encoder_weights": "imagenet-lite0"})
    with pytest.raises(OptionInvalid, match="imagenet-lite0"):
        read_config(path)


def test_the_shipped_recipes_can_be_read() -> None:
    for path in Path(__file__).parents[3].glob("bundles/*/training.yaml"):
        assert read_config(path).bundle.name == yaml.safe_load(path.read_text())["bundle"]["name"] == path.parent.name
