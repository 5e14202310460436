"""docs/evaluate.md names every setting, and its example is one."""

import re
from pathlib import Path

import yaml

from foveate.card import read_card
from model.datasets.layouts import labelling_of
from model.evaluation.config import BundlesFile, EvaluateConfig

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "evaluate.md").read_text()


def test_every_setting_is_named() -> None:
    table = PAGE.split("## Settings under `evaluate`")[1]
    assert set(EvaluateConfig.model_fields) == set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    )


def test_the_example_is_valid() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    data = BundlesFile.model_validate(yaml.safe_load(example.group(1))).data
    # Its labels mean what its bundle's classes mean, each its own.
    card = read_card(ROOT / "bundles" / "landcover")
    assert labelling_of(data).values == {entry.value for entry in card.classes}
