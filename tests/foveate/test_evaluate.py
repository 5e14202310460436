"""`foveate evaluate` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from foveate.cli import run
from raster.cog import reading_back
from tests.model.evaluation.scenes import data_entries, make_rgb_bundle, stripes, write_pair


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_pair(tmp_path, "a", *stripes(64, 64))
    make_rgb_bundle(tmp_path / "rgb")
    entries = {"bundles": {"rgb": "rgb"}, "data": data_entries(tmp_path), "evaluate": {"maps": 0}}
    entries["evaluate"]["policies"] = ["fixed:1"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(entries))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tiny.yaml"


def test_it_writes_a_report_and_says_where(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(config), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "fixed:1                  mIoU 100.0 %" in printed.out
    assert printed.out.splitlines()[-1] == "evaluation/tiny/report.md"
    assert Path("evaluation/tiny/report.md").is_file() and "100%" in printed.err
    assert run(["evaluate", str(config)]) == 2
    assert "--overwrite" in capsys.readouterr().err.splitlines()[-1]


def test_json_is_the_only_thing_on_stdout(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(config), "--out", "here", "--json", "--device", "cpu"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["directory"] == "here" and document["models"]["fixed:1"]["miou"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundles": {"rgb": "nowhere"}}, "nowhere"),
        ({"data": None}, "data"),
        ({"evaluate": {"policy": "mean"}}, "evaluate.policy"),
    ],
)
def test_bad_files_end_with_what_to_do(
    config: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | change))
    assert run(["evaluate", str(config)]) == 2
    printed = capsys.readouterr().err.splitlines()
    assert message in printed[-2] and printed[-1].startswith("hint: ")
    assert not Path("evaluation").exists()


def test_the_mask_that_is_scored_is_the_one_that_segment_writes(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that are `segment`'s own mask give full marks, on noise, where every choice shows."""
    noise = np.random.default_rng(3).integers(0, 256, (150, 210, 3), np.uint8)
    write_pair(tmp_path, "a", noise, np.zeros((150, 210), np.uint8))
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "state"))
    make_rgb_bundle(tmp_path / "rgb", mapping="explicit", policy="mode", fovs=[32, 64, 128])
    command = ["segment", "images/a.png", "--out", "segmented", "--model", "rgb", "--policy", "mode"]
    assert run([*command, "--device", "cpu"]) == 0
    with reading_back(Path("segmented/mask.tif")) as mask:
        write_pair(tmp_path, "a", noise, mask.read(1))
    entries = yaml.safe_load(config.read_text())
    entries["evaluate"]["policies"] = ["mode"]
    config.write_text(yaml.safe_dump(entries))
    assert run(["evaluate", str(config), "--out", "scored", "--device", "cpu"]) == 0
    scores = json.loads(Path("scored/scores.json").read_text())["models"]["mode"]
    assert scores["accuracy"] > 0.9999
    assert sum(count > 0 for count in scores["patches_by_fov"]) > 1
