"""F_theta learns to look wide where context decides and close where texture does, by the segmentation loss alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.datasets.layouts import find_pairs
from model.foveation import FoveationModule
from model.inputs import Normalise
from model.training.config import Joint, TrainConfig
from model.training.devices import Place
from model.training.joint import JointLearner, Minibatch
from model.training.samples import JointSamples, Sample, gather
from raster.geometry import Size
from tests.model.training.recipes import bundle_card, joint_recipe
from tests.model.training.scenes import CLASSES, PATCH, WIDE, make_scene, write_scenes

_SCENES, _UNSEEN = 16, range(100, 108)
_BATCHES, _STEPS = 16, 150
_SEED = 6
"""Of weights that, as they are, take the halves for each other: nothing is found by luck."""


class Glance(nn.Module):
    """One class for a patch: what its edges and colours amount to on the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Conv2d(3, 24, 3)
        self.head = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, CLASSES))

    def forward(self, patches: Tensor) -> Tensor:
        felt = torch.relu(self.edges(patches)).mean(dim=(2, 3))
        return self.head(felt)[:, :, None, None].expand(-1, -1, *patches.shape[2:])


class Severed(JointLearner):
    """The gradient never reaches F_theta."""

    def accumulate(self, batch: Minibatch, leaf_LDYX: Tensor | None, tau: float) -> float:
        loss = super().accumulate(batch, leaf_LDYX, tau)
        assert leaf_LDYX is not None and leaf_LDYX.grad is not None and leaf_LDYX.grad.abs().max() > 0
        leaf_LDYX.grad.zero_()
        return loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    write_scenes(path, _SCENES)
    return path


def config_of(folder: Path, **training: Any) -> TrainConfig:
    classes = [{"value": k, "name": str(k), "color": [k, k, k]} for k in range(CLASSES)]
    recipe = joint_recipe(folder, images=4, locations=8, loss={}, **training)
    recipe["bundle"] = bundle_card(
        patch_size=PATCH, fovs=[PATCH, WIDE], foveation={"downsample": PATCH, "hidden": 16}, classes=classes
    )
    recipe["data"] |= {
        "train": [{"images": "images/*.png", "labels": "labels/*.png"}],
        "labels": [{"low": k, "high": k, "value": k} for k in range(CLASSES)],
    }
    recipe["augmentation"] = {"flip": False}
    return TrainConfig.model_validate(recipe)


@pytest.fixture(scope="module")
def samples(folder: Path) -> list[Sample]:
    """Minibatches as the loader gives them."""
    config = config_of(folder, policy="mean", steps=_BATCHES)
    scene = make_scene(0)
    sizes = [Size(scene.labels.shape[1], scene.labels.shape[0])] * _SCENES
    found = JointSamples(find_pairs(config.data, "train"), sizes, config)
    return [gather([found[(step, slot)] for slot in range(4)]) for step in range(_BATCHES)]


def learnt(config: TrainConfig, samples: list[Sample], kind: type[JointLearner]) -> FoveationModule:
    torch.manual_seed(_SEED)
    foveation = FoveationModule(3, 2, hidden=16)
    nets = nn.ModuleDict({"network": Glance(), "foveation": foveation})
    assert isinstance(config.training, Joint)
    learner = kind(nets, config.bundle, config.training, torch.ones(CLASSES), Place(torch.device("cpu")))
    for step in range(config.training.steps):
        sample = samples[step % len(samples)]
        learner.update(sample._replace(noise=-torch.empty_like(sample.noise).exponential_().log()), step)
    learner.finish()
    return foveation


@torch.no_grad()
def accuracy(foveation: FoveationModule, config: TrainConfig) -> float:
    """Of the more likely field of view on scenes never seen, the mean over the two kinds of places."""
    normalise = Normalise(config.bundle, torch.device("cpu"))
    hits: dict[int, list[float]] = {0: [], 1: []}
    for seed in _UNSEEN:
        scene = make_scene(seed)
        rows, columns = scene.best.shape
        cells = scene.pixels.reshape(rows, PATCH, columns, PATCH, 3).mean(axis=(1, 3))
        chosen = foveation(normalise(torch.from_numpy(cells)[None]))[0].argmax(dim=0).numpy()
        for kind in hits:
            hits[kind] += (chosen == kind)[scene.best == kind].tolist()
    return float(np.mean([np.mean(found) for found in hits.values()]))


POLICIES: dict[str, dict[str, Any]] = {
    "mean": {"policy": "mean"},
    "mode": {"policy": "mode"},
    "gumbel": {"policy": "gumbel"},
}


@pytest.mark.parametrize("name", POLICIES)
def test_it_finds_the_best_field_of_view(folder: Path, samples: list[Sample], name: str) -> None:
    config = config_of(folder, steps=_STEPS, **POLICIES[name])
    assert accuracy(learnt(config, samples, JointLearner), config) > 0.9


@pytest.mark.parametrize("name", POLICIES)
def test_it_finds_nothing_without_its_gradient(folder: Path, samples: list[Sample], name: str) -> None:
    config = config_of(folder, steps=_STEPS, **POLICIES[name])
    assert accuracy(learnt(config, samples, Severed), config) < 0.7
