"""What recipes and experiments may say: refused by the field that is wrong, before any work."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from foveate.errors import OptionInvalid
from foveate.schema import NetworkCard
from model.experiment import read_experiment
from model.networks import build
from model.training.config import QUARTERED, parse_config
from model.training.joint import output_stride
from tests.model.training.recipes import joint_recipe, staged_recipe, write_yaml

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("place", "change", "named"),
    [
        (("training", "network"), {"fov_shares": [1.0]}, "fov_shares"),
        (("training", "network"), {"fov_shares": [0.5, 0.4]}, "add up to 0.9"),
        (("training", "network"), {"steps": 0}, "training.staged.network.steps"),
        (("training", "network"), {"stpes": 4}, "training.staged.network.stpes"),
        (("bundle",), {"mapping": "implicit"}, "explicit"),
        (("bundle",), {"policy": "mean"}, "policy 'mean' mixes fields of view"),
        (("bundle",), {"policy": "fixed:3"}, "the bundle has 2 fields of view"),
        (("bundle",), {"foveation": None}, "foveation"),
    ],
)
def test_a_wrong_recipe_is_refused_by_field(
    tmp_path: Path, place: tuple[str, ...], change: dict[str, Any], named: str
) -> None:
    entries = staged_recipe(tmp_path)
    section = entries
    for name in place:
        section = section[name]
    section |= change
    with pytest.raises(OptionInvalid, match=re.escape(named)):
        parse_config(entries, "recipe.yaml")


@pytest.mark.parametrize("entries", [joint_recipe, staged_recipe])
def test_a_patch_whose_quarter_is_no_whole_number_is_refused(tmp_path: Path, entries: Callable[..., Any]) -> None:
    """Labels and output would disagree in size once an update takes both, after all images were looked at."""
    recipe = entries(tmp_path)
    recipe["bundle"] |= {"patch_size": 70, "fovs": [70, 140]}
    recipe["bundle"]["network"]["architecture"] = "hrnet_w18"
    with pytest.raises(OptionInvalid, match=r"patch_size 70: .* choose 68 or 72"):
        parse_config(recipe, "recipe.yaml")
    recipe["bundle"] |= {"patch_size": 72, "fovs": [72, 144]}
    assert parse_config(recipe, "recipe.yaml")
    recipe["bundle"] |= {"patch_size": 70, "fovs": [70, 140]}
    recipe["bundle"]["network"]["architecture"] = "fcn"
    assert parse_config(recipe, "recipe.yaml")


def test_networks_that_learn_on_a_quarter_are_known() -> None:
    for name in build._OURS:
        card = NetworkCard(library="foveate", architecture=name, in_channels=3)
        with torch.device("meta"):
            stride = output_stride(build.build_network(card, 2), 3, 64)
        assert stride == (4 if name in QUARTERED else 1), name


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(OptionInvalid, match=r"recipe\.yaml"):
        read_experiment(path)


def _experiment(folder: Path) -> dict[str, Any]:
    recipe = {key: value for key, value in staged_recipe(folder).items() if key != "run"}
    return {"name": "first", "runs": "runs/first", "recipe": recipe, "models": {"one": {}, "two": {"seed": 2}}}


def test_an_experiment_is_changed_by_what_is_laid_over_it(tmp_path: Path) -> None:
    write_yaml(tmp_path / "first.yaml", _experiment(tmp_path))
    changes = {"base": "first.yaml", "runs": "runs/second", "recipe": {"seed": 7}}
    one, two = read_experiment(write_yaml(tmp_path / "second.yaml", changes)).runs
    assert (one.config.seed, two.config.seed) == (7, 2)
    assert one.config.run == Path("runs/second/all/one")
    before = read_experiment(tmp_path / "first.yaml").runs[0].config
    assert one.config.model_copy(update={"seed": before.seed, "run": before.run}) == before
    [alone] = read_experiment(write_yaml(tmp_path / "third.yaml", changes | {"models": {"one": None}})).runs
    assert (alone.model, alone.config.seed) == ("two", 2)


def test_a_base_that_is_no_experiment_is_refused_with_both_names(tmp_path: Path) -> None:
    write_yaml(tmp_path / "recipe.yaml", staged_recipe(tmp_path))
    for base in ("recipe.yaml", "second.yaml"):
        path = write_yaml(tmp_path / "second.yaml", {"base": base, "recipe": {"seed": 7}})
        with pytest.raises(OptionInvalid, match=rf"second\.yaml: base: .*{re.escape(base)}"):
            read_experiment(path)


def test_the_shipped_recipes_can_be_read() -> None:
    for path in ROOT.glob("bundles/*/training.yaml"):
        [found] = read_experiment(path).runs
        assert found.model == yaml.safe_load(path.read_text())["bundle"]["name"] == path.parent.name
