"""docs/models.md as a user follows it: its blocks are run in order, as they are written."""

import re
import shlex
from pathlib import Path

import pytest

from foveate.cli import run
from foveate.schema import BundleCard
from tests.bundles import make_bundle
from tests.shared import DATA

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


@pytest.mark.slow
def test_the_page_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "data"))
    (tmp_path / "scene.tif").symlink_to(DATA / "geotiff" / "rgb_deflate.tif")
    make_bundle(tmp_path / "runs" / "tiny" / "bundle")
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "json", "sh", "sh"]
    for language, text in blocks:
        if language == "python":
            exec(text, {})
        elif language == "json":
            (tmp_path / "card.json").write_text(text)
        else:
            for command in text.splitlines():
                words = shlex.split(command)
                assert words[0] == "foveate"
                assert run(words[1:]) == 0, command
    assert (tmp_path / "roofs-of-scene" / "mask.tif").is_file()
    assert (tmp_path / "trained.zip").is_file()


def test_every_field_of_a_card_is_explained() -> None:
    fields = set(BundleCard.model_fields) | {f"input.{name}" for name in ("kind", "mean", "std", "bands", "spacing")}
    assert {name for name in fields if f"`{name}`" not in PAGE} == set()
