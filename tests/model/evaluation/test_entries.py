"""What a file asks to be scored, and what it is told where something is wrong or missing."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from foveate.errors import BundleUnknown, OptionInvalid
from model.evaluation.entries import Scoring, read_scoring
from tests.model.evaluation.scenes import CLASSES, data_entries, make_rgb_bundle
from tests.model.training.recipes import bundle_card


def written(path: Path, entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path


def scoring_of_bundles(folder: Path, **evaluate: Any) -> Scoring:
    make_rgb_bundle(folder / "rgb")
    entries = {"bundles": {"rgb": str(folder / "rgb")}, "data": data_entries(folder), "evaluate": evaluate}
    return read_scoring(written(folder / "e.yaml", entries))


def test_a_bundle_is_scored_by_its_policy_and_every_fixed_one(tmp_path: Path) -> None:
    assert [entry.name for entry in scoring_of_bundles(tmp_path).entries] == ["mean", "fixed:1", "fixed:2"]


def test_two_bundles_keep_their_names(tmp_path: Path) -> None:
    directories = {name: str(make_rgb_bundle(tmp_path / name)) for name in ("one", "two")}
    entries = {"bundles": directories, "data": data_entries(tmp_path), "evaluate": {"policies": ["mode"]}}
    entries["evaluate"]["ensembles"] = {"both": ["one mode", "two mode"]}
    scoring = read_scoring(written(tmp_path / "e.yaml", entries))
    assert [entry.name for entry in scoring.entries] == ["one mode", "two mode", "both"]
    assert [len(entry.parts) for entry in scoring.entries] == [1, 1, 2]
    assert scoring.entries[2].role == "ensemble" and not scoring.entries[2].has_map


def test_bad_files_name_the_field(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"evaluate\.resolutions"):
        scoring_of_bundles(tmp_path, resolutions=[2])
    with pytest.raises(OptionInvalid, match="the bundle has 2 fields of view"):
        scoring_of_bundles(tmp_path, policies=["fixed:3"])
    with pytest.raises(OptionInvalid, match="bundles"):
        read_scoring(written(tmp_path / "f.yaml", {"bundles": {}, "data": data_entries(tmp_path)}))
    with pytest.raises(BundleUnknown, match="no-such"):
        bundles = {"a": str(tmp_path / "no-such")}
        read_scoring(written(tmp_path / "g.yaml", {"bundles": bundles, "data": data_entries(tmp_path)}))


def experiment(folder: Path, **evaluate: Any) -> dict[str, Any]:
    """Two folds of three jointly trained models, none of them trained yet."""
    recipe = {
        "bundle": bundle_card(classes=CLASSES),
        "data": data_entries(folder),
        "training": {"method": "joint", "steps": 10},
    }
    models = {
        "mean": {"training": {"policy": "mean"}},
        "gsm": {"training": {"policy": "gumbel", "hard": True, "tau_rate": 5.0}},
        "soft": {"training": {"policy": "gumbel", "tau": 0.7, "geometry": "center"}},
        "small": {"training": {"policy": "fixed:1"}, "bundle": {"foveation": None, "policy": "fixed:1"}},
        "large": {"training": {"policy": "fixed:2"}, "bundle": {"foveation": None, "policy": "fixed:2"}},
    }
    folds = {"a": {"seed": 1}, "b": {"seed": 2}}
    base = {"name": "tiny", "recipe": recipe, "runs": str(folder / "runs"), "folds": folds, "models": models}
    return base | {"evaluate": evaluate}


def test_finished_runs_are_scored_and_the_others_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.yaml", experiment(tmp_path, ensembles={"both": ["small", "large"]}))
    for run in ("a/mean", "a/gsm", "a/soft", "a/small", "a/large", "b/small"):
        make_rgb_bundle(tmp_path / "runs" / run / "bundle")
    scoring = read_scoring(path)
    assert [f"{e.fold}/{e.name}" for e in scoring.entries] == [
        *("a/mean", "a/gsm", "a/soft", "a/small", "a/large"),
        *("b/small", "a/both"),
    ]
    assert scoring.missing == ["b/mean", "b/gsm", "b/soft", "b/large", "b/both"]


def test_a_plain_recipe_is_scored_from_its_run_or_where_it_was_published(tmp_path: Path) -> None:
    recipe = experiment(tmp_path)["recipe"] | {"run": str(tmp_path / "run"), "output": str(tmp_path / "published")}
    path = written(tmp_path / "recipe.yaml", recipe)
    assert read_scoring(path).missing == ["all/tiny"]
    make_rgb_bundle(tmp_path / "published")
    assert read_scoring(path).entries[0].parts[0].bundle == tmp_path / "published"
    make_rgb_bundle(tmp_path / "run" / "bundle")
    scoring = read_scoring(path)
    assert scoring.name == "tiny" and scoring.entries[0].parts[0].bundle == tmp_path / "run" / "bundle"


def test_each_net_is_scored_as_it_was_trained(tmp_path: Path) -> None:
    path = written(tmp_path / "x.yaml", experiment(tmp_path))
    for model in ("mean", "gsm", "soft", "small"):
        make_rgb_bundle(tmp_path / "runs/a" / model / "bundle")
    parts = {entry.name: entry.parts[0] for entry in read_scoring(path).entries}
    assert {name: part.policy for name, part in parts.items()} == {
        "mean": "mean",
        "gsm": "mode",  # straight-through without noise: the likeliest
        "soft": "gumbel",
        "small": "fixed:1",
    }
    assert parts["soft"].tau == 0.7
    assert parts["gsm"].tau == 0.1, "exp(-5) is below the floor"
    assert [parts[name].geometry for name in ("mean", "soft")] == ["lattice", "center"]
    maps = {entry.name: entry.has_map for entry in read_scoring(path).entries}
    assert maps == {"mean": True, "gsm": True, "soft": True, "small": False}


def test_one_geometry_for_all_on_request(tmp_path: Path) -> None:
    path = written(tmp_path / "x.yaml", experiment(tmp_path, geometry="center"))
    make_rgb_bundle(tmp_path / "runs/a/mean/bundle")
    assert read_scoring(path).entries[0].geometry == "center"


def test_an_ensemble_of_different_classes_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.yaml", experiment(tmp_path, ensembles={"both": ["small", "large"]}))
    make_rgb_bundle(tmp_path / "runs/a/small/bundle")
    make_rgb_bundle(tmp_path / "runs/a/large/bundle", classes=("red", "green"))
    with pytest.raises(OptionInvalid, match="different classes"):
        read_scoring(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bands": ["blue", "green", "red"]}, "blue/green/red"),
        ({"spacing": 4.0, "spacing_unit": "m", "spacing_range": [2.0, 8.0]}, "at 4 m"),
    ],
)
def test_an_ensemble_of_networks_that_read_images_differently_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = written(tmp_path / "x.yaml", experiment(tmp_path, ensembles={"both": ["small", "large"]}))
    make_rgb_bundle(tmp_path / "runs/a/small/bundle")
    make_rgb_bundle(tmp_path / "runs/a/large/bundle", **changes)
    with pytest.raises(OptionInvalid, match=f"read images differently.*{said}"):
        read_scoring(path)
