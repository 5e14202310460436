"""A card may give its classes any values: they name classes in labels and masks, and never change what is learnt."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from foveate.errors import OptionInvalid
from model.bundle import load_networks
from model.training.config import parse_config
from model.training.train import Trained, train
from tests.model.training.recipes import joint_recipe, staged_recipe, write_pictures, write_yaml
from tests.worker.computed import spec_for, write_image
from worker.pipeline import run

CODES = {0: 30, 1: 10}
"""Not in the order of the channels either."""


def coded(entries: dict[str, Any]) -> dict[str, Any]:
    """The same recipe whose card and labels speak of 30 and 10 instead of 0 and 1."""
    entries = copy.deepcopy(entries)
    for place in (*entries["bundle"]["classes"], *entries["data"]["labels"], entries["augmentation"].get("glass", {})):
        if place.get("value") is not None:
            place["value"] = CODES[place["value"]]
    return entries


def both(folder: Path, entries: dict[str, Any]) -> list[Trained]:
    write_pictures(folder)
    recipes = {"plain": entries, "coded": coded(entries)}
    return [
        train(
            write_yaml(
                folder / f"{name}.yaml", recipe | {"run": str(folder / name), "output": str(folder / f"{name}-bundle")}
            )
        )[0]
        for name, recipe in recipes.items()
    ]


def assert_alike(folder: Path, runs: list[Trained]) -> None:
    """The same losses, weights and scores."""
    assert (folder / "plain/losses.csv").read_text() == (folder / "coded/losses.csv").read_text()
    ours, theirs = (load_networks(made.bundle)[0].state_dict() for made in runs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    plain, codes = (without_seconds(made.scores["policies"]) for made in runs)
    assert plain == codes


def without_seconds(policies: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: value for key, value in found.items() if key != "seconds"} for name, found in policies.items()}


def test_joint_training_its_scores_and_the_mask(tmp_path: Path) -> None:
    runs = both(tmp_path, joint_recipe(tmp_path, steps=12, class_centred=0.5))
    assert_alike(tmp_path, runs)
    scene = write_image(tmp_path / "scene.tif", np.asarray(Image.open(tmp_path / "images/2.png")))
    masks = []
    for made in runs:
        spec = spec_for(scene, made.bundle.directory, tmp_path / f"of-{made.bundle.directory.name}")
        run(spec, lambda stage, share: None, lambda: False)
        with rasterio.open(spec.out / "mask.tif") as file:
            masks.append(file.read(1))
    assert set(np.unique(masks[0])) == {0, 1}
    assert np.array_equal(np.where(masks[0] == 1, CODES[1], CODES[0]), masks[1])
    statistics = json.loads((spec.out / "statistics.json").read_text())
    counted = {entry["value"]: entry["pixels"] for entry in statistics["classes"]}
    assert counted == {code: int((masks[1] == code).sum()) for code in CODES.values()}


def test_staged_training_under_glass(tmp_path: Path) -> None:
    entries = staged_recipe(tmp_path)
    entries["augmentation"]["glass"] = {"share": 0.5, "value": 1}
    entries["training"]["network"]["steps"] = entries["training"]["foveation"]["steps"] = 6
    assert_alike(tmp_path, both(tmp_path, entries))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries["data"]["labels"].append({"low": 2, "high": 2, "value": 2}), "labels mean class 2"),
        (lambda entries: entries["data"].update(background=1), "labels mean class 1"),
        (lambda entries: entries["data"].update(objects=0), "labels mean class 0"),
        (lambda entries: entries["augmentation"].update(glass={"share": 0.5, "value": 1}), r"glass\.value 1"),
    ],
)
def test_a_value_that_the_card_does_not_have_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    entries = coded(joint_recipe(tmp_path))
    change(entries)
    with pytest.raises(OptionInvalid, match=rf"{words}.*\[30, 10\]"):
        parse_config(entries, "recipe.yaml")
