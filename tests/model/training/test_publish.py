"""A finished run's bundle has its scores: its own, from where it was trained, or those of nets that saw less."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.errors import OptionInvalid
from model.bundle import load_bundle
from model.training import publish as module
from model.training.config import TrainConfig
from model.training.train import train
from tests.model.evaluation.scenes import make_rgb_bundle
from tests.model.training.recipes import staged_recipe, write_pictures, write_yaml


def test_scores_are_taken_on_the_device_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of CUDA without an index is none to go to, and under torchrun each process has its own."""
    write_pictures(tmp_path)
    bundle = load_bundle(make_rgb_bundle(tmp_path / "trained"))
    taken: list[torch.device] = []
    monkeypatch.setattr(module, "Predictor", lambda _, device: taken.append(device))
    monkeypatch.setattr(module, "score_bundle", lambda *_, **__: {})
    monkeypatch.setattr(module, "with_scores", lambda *_: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = TrainConfig.model_validate(staged_recipe(tmp_path))
    module.publish(bundle, config, "", tmp_path / "bundle", torch.device("cuda", 1))
    assert taken == [torch.device("cuda", 1)]
    assert load_bundle(tmp_path / "bundle").card.provenance["scores"]["policies"] == {}


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Of a net that learns from every picture, so that none is left to score it on."""
    write_pictures(tmp_path)
    entries = staged_recipe(tmp_path)
    entries["data"]["train"] += entries["data"].pop("test")
    entries["training"]["network"] |= {"steps": 2}
    entries["scores"] = {"evaluation": str(tmp_path / "scores.json"), "model": "scale"}
    return entries


def write_scores(path: Path, miou: float = 0.51, **more: Any) -> None:
    """As an evaluation leaves them of two nets."""
    classes = {"red": 0.5, "blue": 0.52}
    score = {"miou": miou, "iou": classes, "accuracy": 0.7, "patches_by_fov": [3, 1], "confusion": []}
    models = {"scale mode": score, "other mode": score | {"miou": 0.9}}
    path.write_text(json.dumps({"models": models, "settings": {"overlap": 0.25}, "missing": []} | more))


def test_a_net_that_saw_everything_is_not_trained_without_the_scores_of_others(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    path = tmp_path / "recipe.yaml"
    with pytest.raises(OptionInvalid, match=r"data\.test is empty"):
        train(write_yaml(path, recipe | {"scores": None}))
    with pytest.raises(OptionInvalid, match=r"scores\.json"):
        train(write_yaml(path, recipe))
    write_scores(tmp_path / "scores.json", missing=["b/scale"])
    for model in ("scale", None):
        recipe["scores"]["model"] = model
        with pytest.raises(OptionInvalid, match="not all"):
            train(write_yaml(path, recipe))
    assert not (tmp_path / "run").exists()


def test_a_net_that_saw_everything_carries_the_scores_of_nets_that_did_not(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    path, bundle, scores = tmp_path / "recipe.yaml", tmp_path / "bundle", tmp_path / "scores.json"
    point = {"threshold": None, "share": 0.5, "seconds": 1.0, "miou": 0.6, "interval": [-0.1, 0.1]}
    refined = point | {"coverage": "refined", "signal": "entropy, learning"}
    curve = [
        point | {"coverage": "planned", "signal": "gradient", "detail": 0.5, "to_best_fixed": 0.0},
        refined | {"detail": 0.4, "to_best_fixed": -0.002, "threshold": 1.5},
        refined | {"detail": 0.8, "to_best_fixed": 0.01, "threshold": 1.0, "interval": [0.001, 0.02]},
    ]
    write_scores(scores, coverage={"scale": curve})
    recipe["scores"]["coverage"] = "refined"
    [trained] = train(write_yaml(path, recipe))
    coverage = trained.bundle.card.coverage
    assert (coverage.default, coverage.detail, coverage.planning) == ("refined", 0.8, "gradient")
    assert [point.detail for point in coverage.curve] == [0.5, 0.4, 0.8]
    assert trained.scores["policies"]["mode"]["miou"] == 0.51 and "confusion" not in trained.scores["policies"]["mode"]
    assert set(trained.scores["policies"]) == {"mode"}
    assert "**51.0**" in (bundle / "README.md").read_text()

    write_scores(scores, miou=0.62, coverage={"scale": curve})
    recipe["scores"]["coverage"] = "dense"
    [trained] = train(write_yaml(path, recipe))  # what is shipped follows its recipe and its scores, without training
    assert trained.bundle.card.coverage.default == "dense" and trained.scores["policies"]["mode"]["miou"] == 0.62
    assert "**62.0**" in (bundle / "README.md").read_text()
    assert (bundle / "training.yaml").read_text() == path.read_text()
    written = (bundle / "bundle.json").stat().st_mtime_ns
    train(path)
    assert (bundle / "bundle.json").stat().st_mtime_ns == written
