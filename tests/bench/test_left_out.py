"""F_theta judged on images that it never learned from, on a tiny run."""

import argparse
from pathlib import Path

import pytest
import torch

from bench import left_out
from model.experiment import read_experiment
from model.training.train import train
from tests.model.training.recipes import staged_recipe, write_pictures, write_yaml


@pytest.mark.slow
def test_every_image_is_left_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path)
    entries = staged_recipe(tmp_path)
    entries["training"]["network"]["steps"] = 4
    path = write_yaml(tmp_path / "recipe.yaml", entries)
    [run] = read_experiment(path).runs
    asked = argparse.Namespace(config=path, model=run.model)
    with pytest.raises(SystemExit, match="not trained"):
        left_out.measure(asked)

    train(path)
    measured, _ = left_out.places_of(run)
    images = measured.images
    assert len(images.unique()) > 1
    trained_on: list[int] = []
    fit = left_out.fit_foveation

    def counted(part: left_out.Measured, config: object) -> torch.nn.Module:
        trained_on.append(len(part.losses))
        return fit(part, config)  # type: ignore[arg-type]

    monkeypatch.setattr(left_out, "fit_foveation", counted)
    records = left_out.measure(asked)
    assert trained_on == [int((images != image).sum()) for image in images.unique()]
    assert [record["margin"] for record in records] == list(left_out.MARGINS)
    assert all(record["left_out"] < 0 and record["places"] == len(measured.losses) for record in records)  # losses
    shares = [record["other"] for record in records]
    assert shares == sorted(shares, reverse=True)
    assert f"| all | {len(images)} |" in left_out.table(records)
