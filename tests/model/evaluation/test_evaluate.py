"""Scoring: a network that knows the answer scores 1, at every size and policy, and the report says what was counted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foveate.schema import BundleCard
from model.bundle import save_bundle
from model.datasets.patches import IGNORE, Labelled
from model.evaluation.evaluate import evaluate, predict, report
from model.foveation import FoveationModule
from model.networks.build import build_network
from model.predictor import Predictor
from raster.geometry import Region
from tests.model.training.recipes import recipe


@pytest.fixture
def knows_all(tmp_path: Path) -> Predictor:
    """Class k is where band k is brightest: an identity network over three bands."""
    entries = recipe(tmp_path)["bundle"]
    classes = [{"value": k, "name": name, "color": [0, 0, 0]} for k, name in enumerate(("red", "green", "blue"))]
    network = {"library": "foveate", "architecture": "linear", "in_channels": 3}
    card = BundleCard.model_validate({**entries, "network": network, "classes": classes})
    state = build_network(card.network, 3).state_dict()
    state["head.weight"] = 20 * torch.eye(3)[:, :, None, None]
    state["head.bias"] = torch.zeros(3)
    assert card.foveation is not None
    foveation = FoveationModule.from_card(card.foveation, 3, 2).state_dict()
    bundle = save_bundle(tmp_path / "b", card, state, foveation, readme="-", training_yaml="{}")
    return Predictor(bundle, torch.device("cpu"))


def picture(width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    labels = (np.indices((height, width)) // 16).sum(axis=0).astype(np.uint8) % 3
    return np.eye(3, dtype=np.uint8)[labels] * 255, labels


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 31), (101, 67)])
def test_it_labels_every_pixel_at_every_size(knows_all: Predictor, size: tuple[int, int]) -> None:
    pixels, labels = picture(*size)
    mask, seen = predict(knows_all, pixels, "fixed:1", 0.25)
    assert np.array_equal(mask, labels)
    assert seen[1] == 0 and seen[0] >= 1


def test_what_is_seen_follows_the_policy(knows_all: Predictor) -> None:
    pixels, labels = picture(128, 96)
    fine, _ = predict(knows_all, pixels, "fixed:1", 0.25)
    coarse, seen = predict(knows_all, pixels, "fixed:2", 0.25)
    assert seen[0] == 0 and seen[1] > 1
    assert (fine == labels).all() and 0.9 < (coarse == labels).mean() <= 1


def test_policies_that_mix_are_refused(knows_all: Predictor) -> None:
    with pytest.raises(ValueError, match="ensemble"):
        predict(knows_all, picture(64, 64)[0], "ensemble", 0.25)


def test_ignored_pixels_are_not_scored_and_images_are_pooled(knows_all: Predictor) -> None:
    pixels, labels = picture(64, 48)
    wrong = labels.copy()
    wrong[:, :8] = IGNORE
    wrong[:4, 8:] = (labels[:4, 8:] + 1) % 3
    images = [Labelled("a", pixels, labels, Region(0, 0, 0, 0)), Labelled("b", pixels, wrong, Region(0, 0, 0, 0))]
    score = evaluate(knows_all, images, ["fixed:1"], 0.25)["fixed:1"]
    assert score.counts.judged == 64 * 48 + 56 * 48
    assert score.counts.correct == score.counts.judged - 56 * 4
    assert score.by_image["a"].mean_iou() == pytest.approx(1)
    facts = report({"fixed:1": score}, knows_all.card)["fixed:1"]
    assert facts["accuracy"] == pytest.approx(score.counts.accuracy, abs=1e-4)
    assert set(facts["iou"]) == {"red", "green", "blue"}
    assert sum(facts["patches_by_fov"]) == 2 * 3 * 2
