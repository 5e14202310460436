"""`foveate info`: the facts of a file, and how each bundle fits, for people and for programs."""

import json
from pathlib import Path

import pytest

from foveate.cli import run
from foveate.schema import ImageInfo
from tests.bundles import make_scene_and_slide
from tests.shared import DATA


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene_and_slide(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(autouse=True)
def _environment(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_BUNDLES", str(models))
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path))


def test_people_read_what_the_file_is_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(DATA / "slides/CMU-1-Small-Region.svs")]) == 0
    lines = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line]
    facts = {name: value.strip() for name, value in lines}
    assert facts["image"] == "CMU-1-Small-Region.svs, a slide"
    assert facts["format"] == "aperio, its tiles read directly"
    assert facts["size"].startswith("2220 x 2967 px")
    assert facts["bands"] == "1 red, 2 green, 3 blue; uint8"
    assert facts["spacing"].startswith("0.499 µm a pixel, from")
    assert facts["glands"].startswith("yes  one of its pixels is 1.242 x 1.242 of level 0")
    assert facts["landcover"].startswith("no")


def test_a_scene_is_placed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(DATA / "geotiff/RGB.byte.tif")]) == 0
    text = capsys.readouterr().out
    assert "WGS 84 / UTM zone 18N (EPSG:32618); transform 300.0379267" in text
    assert "value 0" in text
    assert "scale unknown to the model" in text


def test_programs_read_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(DATA / "geotiff/float_nan.tif"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert ImageInfo.model_validate(document["image"]).width == 3
    assert (document["image"]["nodata"], document["image"]["validity"]) == (None, "nodata")
    assert document["conversion"] is None
    verdicts = {model["name"]: model for model in document["models"]}
    assert verdicts["landcover"]["error"]["code"] == "bands-mismatch"
    assert "--bands 1,1,1" in verdicts["landcover"]["error"]["hint"]
    assert verdicts["glands"]["error"]["code"] == "kind-mismatch"


def test_options_are_tried_as_in_segment(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(DATA / "geotiff/float_nan.tif"), "--json", "--bands", "1,1,1", "--rescale", "0,1"]) == 0
    verdicts = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert verdicts["landcover"] == {
        "name": "landcover",
        "fits": True,
        "ratio": [1.0, 1.0],
        "spacing": None,
        "warnings": [
            "landcover does not say which pixel size it was trained at (scale unknown to the model): "
            "masks of much coarser or finer images may be poor"
        ],
    }


@pytest.mark.parametrize(
    ("name", "code"), [("broken/broken.svs", "image-unsupported"), ("nothing.tif", "image-missing")]
)
def test_what_is_no_image_is_refused(name: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(DATA / name), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_without_models_the_file_is_still_described(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOVEATE_BUNDLES", str(tmp_path / "none"))
    assert run(["info", str(DATA / "photos/rgba.png")]) == 0
    assert "no models are installed" in capsys.readouterr().out
