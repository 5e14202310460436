"""The ready experiment files: each parses, and says what the paper says."""

from pathlib import Path

import pytest
import torch

from model.datasets.layouts import labelling_of
from model.experiment import read_experiment
from model.networks.build import build_network
from model.training.config import Joint

METHOD = Path(__file__).parents[3] / "examples/method"
PAPER = ["mean", "mode", "gumbel", "random", "average", *(f"patch-{k}" for k in range(1, 6))]
SETTINGS = {
    "deepglobe": ([500, 1000, 1500, 2000, 2500], 24, 8, 6, 204_600),
    "cityscapes": ([512, 640, 768, 896, 1024], 16, 8, 19, 297_600),
    "gleason2019": ([1100, 2000, 2900, 3800, 4400], 44, 2, 4, 95_200),
}
"""Bank, step of the low-resolution image, patches an update, classes, updates; foveation-method.md, 8.3 and 9."""


@pytest.mark.parametrize("name", SETTINGS)
def test_the_papers_experiments_have_its_settings(name: str) -> None:
    experiment = read_experiment(METHOD / f"{name}.yaml")
    bank, step, patches, classes, updates = SETTINGS[name]
    assert experiment.models == PAPER and experiment.evaluate.paper == name
    for run in experiment.runs:
        card, joint = run.config.bundle, run.config.training
        assert isinstance(joint, Joint) and (joint.geometry, joint.update) == ("center", "paper")
        assert (card.fovs, len(card.classes), card.mapping) == (bank, classes, "implicit")
        assert (joint.images * joint.locations, joint.steps) == (patches, updates)
        assert card.foveation is None or (card.foveation.downsample, card.foveation.hidden) == (step, 8 * len(bank))
        assert card.foveation is not None or joint.location_step == step
        assert joint.policy == card.policy
        assert (joint.optimiser.learning_rate, joint.optimiser.weight_decay) == (2e-5, 1e-4)
        assert joint.loss.class_weights is None and joint.loss.class_weight_power is None


@pytest.mark.parametrize("path", sorted(METHOD.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_parses_and_its_labels_fit_its_classes(path: Path) -> None:
    for run in read_experiment(path).runs:
        rules = labelling_of(run.config.data).rules
        named = {rule.value for rule in rules if rule.value is not None}
        assert named <= {card.value for card in run.config.bundle.classes}, run.model


@pytest.mark.parametrize("name", ["deepglobe", "cityscapes"])
def test_the_papers_networks_can_be_built(name: str) -> None:
    card = read_experiment(METHOD / f"{name}.yaml").runs[0].config.bundle
    with torch.device("meta"):
        network = build_network(card.network, len(card.classes))
    assert sum(parameter.numel() for parameter in network.parameters()) > 6e7
