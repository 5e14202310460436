"""What `foveate segment` makes of every sample file: a right result, or a refusal with its code.

The table is tests/expectations.csv: file (under the shared data), model (empty: the only one that fits), options,
right or refused, the refusal's code, and the pace of the test. Refusing what could be done right is a defect, so a row
may go from refused to right, and never back without a word in its commit.

Two bundles of a few weights stand for the shipped ones, which see the same kinds, bands and spacings.
"""

import csv
import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from foveate.cli import run
from tests.bundles import make_scene_and_slide
from tests.raster.cards import make_card
from tests.shared import DATA, SHARED

TABLE = Path(__file__).parent.parent / "expectations.csv"
BUNDLES = Path(__file__).parent.parent.parent / "bundles"
_OF_THE_WHOLE = ("mask is", "transform", "mask without overviews")
IMAGES = {".tif", ".tiff", ".svs", ".ndpi", ".dcm", ".jpg", ".png", ".jp2", ".vrt"}

sys.path.insert(0, str(SHARED / "tools"))
problems = importlib.import_module("outputs").problems

with TABLE.open(newline="") as _table:
    ROWS = list(csv.DictReader(_table))


def row_parameters() -> list[Any]:
    return [
        pytest.param(
            row,
            id=" ".join(filter(None, (row["file"], row["model"], row["options"]))),
            marks=[pytest.mark.slow] if row["pace"] == "slow" else [],
        )
        for row in ROWS
    ]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene_and_slide(tmp_path_factory.mktemp("bundles"))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("row", row_parameters())
def test_every_file_ends_as_the_table_says(
    row: dict[str, str],
    bundles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FOVEATE_BUNDLES", str(bundles))
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "data"))
    image, out = DATA / row["file"], tmp_path / "out"
    model = ["--model", row["model"]] if row["model"] else []
    code = run(["segment", str(image), "--out", str(out), "--json", *model, *shlex.split(row["options"])])
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    document = json.loads(printed.out)
    if row["expect"] == "right":
        assert code == 0, document
        found = problems(image, out)
        if "--roi" in row["options"] or "--mask-downsample" in row["options"]:
            # The tool compares with the whole image; tests/worker holds such masks against the crop of a whole one.
            found = [problem for problem in found if not problem.startswith(_OF_THE_WHOLE)]
        assert found == []
        return
    assert code == 2, document
    assert document["error"]["code"] == row["code"]
    assert document["error"]["hint"]
    assert Path(row["file"]).name in document["error"]["message"] or row["code"] in ("option-invalid", "no-such-model")
    assert not out.exists()
    assert not out.with_name("out.partial").exists()


def test_the_table_names_every_sample() -> None:
    named = {row["file"] for row in ROWS}
    for folder in ("slides", "geotiff", "photos", "broken"):
        for path in (DATA / folder).rglob("*"):
            if path.suffix not in IMAGES:
                continue
            series = path.parent if path.suffix == ".dcm" and folder == "slides" else path
            assert str(series.relative_to(DATA)) in named
    for folder in ("aerial", "pathology", "street"):
        assert any(name.startswith(folder) for name in named)


@pytest.mark.parametrize(("name", "changes"), [("landcover", {"kind": "scene", "spacing": None}), ("glands", {})])
def test_the_small_bundles_ask_for_what_the_shipped_ones_ask(name: str, changes: dict[str, Any]) -> None:
    import yaml

    recipe = yaml.safe_load((BUNDLES / name / "training.yaml").read_text())["bundle"]["input"]
    small = make_card(**changes).input.model_dump(mode="json")
    for field in ("kind", "bands", "dtype", "value_scale", "spacing", "spacing_unit", "spacing_range"):
        assert small[field] == recipe[field]
