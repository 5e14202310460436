"""docs/evaluate.md names every setting, and its example is one."""

import re
from pathlib import Path

import yaml

from model.evaluation.config import BundlesFile, EvaluateConfig

PAGE = (Path(__file__).parents[3] / "docs" / "evaluate.md").read_text()


def test_every_setting_is_named() -> None:
    table = PAGE.split("## Settings under `evaluate`")[1]
    assert set(EvaluateConfig.model_fields) == set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    )


def test_the_example_is_valid() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    assert BundlesFile.model_validate(yaml.safe_load(example.group(1))).evaluate.gold
