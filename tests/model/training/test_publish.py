"""A finished run's bundle is scored where it was trained."""

from pathlib import Path

import pytest
import torch

from model.bundle import load_bundle
from model.training import publish as module
from model.training.config import TrainConfig
from tests.model.evaluation.scenes import make_rgb_bundle
from tests.model.training.recipes import staged_recipe, write_pictures


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
