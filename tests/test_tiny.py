"""The first example of docs/training.md, as the page shows it, with fewer steps on smaller scenes."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from foveate.cli import run

ROOT = Path(__file__).parent.parent
RECIPE = Path("examples/tiny/training.yaml")
sys.path.insert(0, str(ROOT / "examples" / "tiny"))

import make_scenes  # noqa: E402


def commands() -> list[list[str]]:
    """What the page's first block says to type: the script, then three commands of ours."""
    block = re.search(r"```sh\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block[1].splitlines()]


def test_the_page_begins_with_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load((ROOT / RECIPE).read_text())
    recipe["training"]["network"]["steps"] = 20
    recipe["training"]["foveation"]["steps"] = 5
    recipe |= {"threads": 1, "loaders": 0}
    RECIPE.parent.mkdir(parents=True)
    RECIPE.write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(make_scenes, "SIDES", dict.fromkeys(make_scenes.SIDES, 256))

    (script, program), *ours = ((line[0], line[1:]) for line in commands())
    assert (Path(script).name, program) == ("python", ["examples/tiny/make_scenes.py"])
    make_scenes.make_scenes(Path(recipe["data"]["folder"]))
    for name, arguments in ours:
        assert Path(name).name == "foveate"
        assert run(arguments) == 0, arguments

    scores = json.loads(Path("runs/tiny-evaluation/scores.json").read_text())
    assert set(scores["models"]) == {"mode", "fixed:1", "fixed:2", "fixed:3"}
    assert (tmp_path / "runs/tiny-result/mask.tif").is_file()


def test_the_same_numbers_give_the_same_scenes(tmp_path: Path) -> None:
    for name in ("once", "again"):
        make_scenes.make_scenes(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "once") for path in (tmp_path / "once").rglob("*.*"))
    assert len(files) == 2 * len(make_scenes.SIDES)
    assert all((tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)
