"""The bench of adaptive coverage on tiny nets: places chosen elsewhere, equal forwards, and one fold refused."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from bench import adaptive
from model.device import choose_device
from model.evaluation.config import Bootstrap
from model.evaluation.coverage import prepare, subjects
from model.evaluation.entries import read_scoring
from tests.model.evaluation.scenes import PATCH, data_entries, make_rgb_bundle, write_pair

FOVS = [PATCH, 2 * PATCH, 4 * PATCH]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two pictures, striped on the left, and a net that knows their answer."""
    size = 6 * PATCH
    for name, period in (("a", 2), ("b", 3)):
        labels = (np.indices((size, size)).sum(axis=0) // period % 3).astype(np.uint8)
        labels[:, size // 2 :] = 1
        write_pair(tmp_path, name, np.eye(3, dtype=np.uint8)[labels] * 255, labels)
    bundle = make_rgb_bundle(tmp_path / "rgb", mapping="explicit", policy="mode", fovs=FOVS)
    entries = {"bundles": {"rgb": str(bundle)}, "data": data_entries(tmp_path)}
    entries["evaluate"] = {"policies": ["mode"], "coverage": True}
    path = tmp_path / "evaluate.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


def test_points_are_chosen_on_other_folds_and_judged_in_pairs(config: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(adaptive, "DETAILS", (0.35, 0.5))
    scoring = read_scoring(config)
    ((_, entries),) = subjects(scoring).items()
    images = prepare(entries, scoring, choose_device("cpu"), tmp_path / "nodes", lambda share: None)
    folds = {name: [replace(image, fold=name)] for name, image in zip("ab", images, strict=True)}
    found = adaptive.measure(folds)
    uses = [use for use, _ in found]
    assert uses.count("plain") == 3 + 2
    assert {"0.35 of the forwards", "0.5 of the forwards", "d = 1 minus 0.5", "best fixed or mean"} < set(uses)
    records = adaptive.judged(found, [image.blocks for image in images], Bootstrap(draws=20, block=64))
    finest = records[0]
    assert (finest["cover"], finest["to d = 1"]) == ("d = 1", [0, 0, 0])
    planned = next(r for r in records if (r["use"], r["cover"]) == ("0.35 of the forwards", "planned, gradient"))
    assert planned["share"] <= 0.35
    assert planned["to d = 1"][1] <= planned["to d = 1"][0] <= planned["to d = 1"][2]
    learnt = [r for r in records if r["cover"].endswith(adaptive.REFINED)]
    assert len(learnt) == 4
    assert all({"to random", "to gradient", "to oracle"} < set(r) for r in learnt)
    shown = adaptive.table(records)
    assert "| control at " in shown
    assert "| plain | mean of the 3 finest |" in shown


def test_one_fold_has_nowhere_to_choose_from(config: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"one fold alone .* Run `foveate train"):
        adaptive.measure_all(argparse.Namespace(config=config, cache=tmp_path / "nodes"))
