"""The bundles in the repository: sound, honestly licensed, small, and with an F_theta that chooses."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from foveate.schema import CoverageCard
from model.bundle import load_bundle, verify_bundle
from model.datasets.config import PairsData
from model.datasets.labelled import LabelledImage, open_labelled
from model.datasets.layouts import find_pairs
from model.evaluation.predict import Effort, Member, Sampling, location_distribution, predict_strips
from model.predictor import Predictor
from model.training.config import parse_config, read_yaml
from tests.shared import DATA

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parent for path in ROOT.glob("bundles/*/bundle.json"))
_MIB = 1 << 20

each_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)


def held_out(predictor: Predictor, folder: Path) -> LabelledImage:
    """A picture that the bundle never learned from, 1024 pixels or so a side, without labels."""
    pixels = _picture(predictor.card.name)
    Image.fromarray(pixels).save(folder / "image.png")
    Image.fromarray(np.zeros(pixels.shape[:2], np.uint8)).save(folder / "label.png")
    scenes = [{"images": "image.png", "labels": "label.png"}]
    data = PairsData.model_validate(
        {
            "layout": "pairs",
            "folder": str(folder),
            "train": scenes,
            "test": scenes,
            "labels": [{"low": 0, "high": 0, "value": 0}],
            "spacing": predictor.card.input.spacing,
        }
    )
    return open_labelled(find_pairs(data, "test")[0], data, predictor.card)


def masked(predictor: Predictor, image: LabelledImage, policy: str) -> tuple[NDArray[np.int64], list[int]]:
    """The mask, and the patches read by field of view."""
    effort = Effort()
    strips = list(predict_strips([Member(predictor, policy)], image, Sampling(), effort))
    return np.concatenate([strip.scores.argmax(axis=0) for strip in strips]), effort.patches_by_fov


def _picture(name: str) -> NDArray[np.uint8]:
    if name == "landcover":
        paths, side = [DATA / f"aerial/dubai/tile_7/images/image_part_00{k}.jpg" for k in (1, 2, 4, 5)], 600
    else:
        paths, side = [DATA / f"pathology/glas/test/images/00{k}.jpg" for k in (1, 2, 3, 4)], 440
    quarters = [np.asarray(Image.open(path))[:side, :side] for path in paths]
    return np.concatenate([np.concatenate(quarters[:2], axis=1), np.concatenate(quarters[2:], axis=1)])


def test_both_first_bundles_are_there() -> None:
    assert {"landcover", "glands"} <= {path.name for path in BUNDLES}


@each_bundle
def test_it_is_sound_small_and_made_by_the_recipe_beside_it(bundle: Path) -> None:
    report = verify_bundle(bundle)
    assert report.files["weights.safetensors"] < 10 * _MIB
    card = load_bundle(bundle).card
    recipe = parse_config(read_yaml(bundle / "training.yaml"), "training.yaml")
    later = {"provenance": {}, "coverage": CoverageCard()}  # the curve comes from `foveate evaluate --store`
    assert card.model_copy(update=later) == recipe.bundle.model_copy(update=later)
    assert card.provenance["command"] == f"foveate train bundles/{card.name}/training.yaml"


@each_bundle
def test_its_card_has_the_fields_of_a_model_card_and_the_scores_of_its_provenance(bundle: Path) -> None:
    text = (bundle / "README.md").read_text()
    front = text.split("---\n")[1]
    for field in ("license", "library_name", "pipeline_tag", "tags", "datasets", "metrics", "base_model"):
        assert f"{field}:" in front, field
    policies = load_bundle(bundle).card.provenance["scores"]["policies"]
    for policy, score in policies.items():
        assert f"| {policy} | **{100 * score['miou']:.1f}** |" in text


def test_the_licences_say_what_the_data_allow() -> None:
    landcover, glands = (load_bundle(ROOT / "bundles" / name).card for name in ("landcover", "glands"))
    assert landcover.licence == "Apache-2.0"
    assert "research only" in glands.licence.lower() and "no commercial use" in glands.licence.lower()
    readme = (ROOT / "bundles/glands/README.md").read_text()
    assert "provided for research purposes only" in readme and "Sirinukunwattana" in readme


def test_landcover_carries_the_curve_that_refined_coverage_follows() -> None:
    card = load_bundle(ROOT / "bundles" / "landcover").card
    refined = [point for point in card.coverage.curve if point.coverage == "refined"]
    assert all(point.threshold is not None for point in refined)
    by_detail = {point.detail: point for point in refined}
    assert card.coverage.default == "refined"
    assert card.coverage.detail is not None and by_detail[card.coverage.detail].low >= 0
    table = (ROOT / "bundles/landcover/README.md").read_text()
    for detail in (0.35, 0.5, 0.65):
        assert f"| {detail:g} | {by_detail[detail].share:.2f} | {100 * by_detail[detail].miou:.1f} |" in table
    chosen = by_detail[card.coverage.detail]
    said = f"| {chosen.detail:g} (the card's default) | {chosen.share:.2f} | {100 * chosen.miou:.1f} |"
    assert said in table and f"the default, has {100 * chosen.miou:.1f}" in table


def test_they_reach_their_aims_on_what_was_held_out() -> None:
    """The scores that training measured: the aims of both are met."""
    policies = {
        name: json.loads((ROOT / f"bundles/{name}/bundle.json").read_text())["provenance"]["scores"]["policies"]
        for name in ("landcover", "glands")
    }
    assert policies["landcover"]["mode"]["miou"] >= 0.65
    assert policies["glands"]["mode"]["dice"]["gland"] >= 0.85
    assert policies["glands"]["mode"]["object_dice"] >= 0.75


@each_bundle
def test_f_theta_chooses_by_place(bundle: Path, tmp_path: Path) -> None:
    predictor = Predictor(load_bundle(bundle), torch.device("cpu"))
    card = predictor.card
    assert card.foveation is not None
    with contextlib.closing(held_out(predictor, tmp_path)) as image:
        distribution = location_distribution(predictor, image, "lattice")
    shares = np.bincount(distribution.argmax(axis=0).ravel(), minlength=len(card.fovs)) / distribution[0].size
    assert (shares > 0.02).sum() >= 2, f"one field of view everywhere: {shares}"
    assert distribution.std(axis=(1, 2)).max() > 0.02


@each_bundle
def test_permuting_its_probabilities_changes_what_is_seen_and_the_mask(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(load_bundle(bundle), torch.device("cpu"))
    with contextlib.closing(held_out(predictor, tmp_path)) as image:
        mask, seen = masked(predictor, image, "mode")
        distribution = predictor.distribution
        monkeypatch.setattr(predictor, "distribution", lambda values: np.ascontiguousarray(distribution(values)[::-1]))
        other_mask, other_seen = masked(predictor, image, "mode")
    assert seen != other_seen
    assert (mask != other_mask).mean() > 0.005
