"""The whole evaluation of tiny bundles: what is written, and that the numbers are right."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from foveate.errors import BandsMismatch, OptionInvalid, OutputExists
from model.evaluation import run as evaluation
from model.evaluation.paper import PAPER
from model.evaluation.run import Evaluation, evaluate
from tests.model.evaluation.scenes import UNLABELLED, data_entries, make_rgb_bundle, stripes, write_pair
from tests.model.evaluation.test_entries import experiment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures; 10 of the 96 rows of the second are labelled wrongly, 6 not at all."""
    pixels, labels = stripes(80, 96)
    write_pair(tmp_path, "a", pixels, labels)
    wrong = labels.copy()
    wrong[:10] = (wrong[:10] + 1) % 3
    wrong[10:16] = UNLABELLED
    write_pair(tmp_path, "b", pixels, wrong)
    return tmp_path


def run(folder: Path, entries: dict[str, Any], **options: Any) -> Evaluation:
    path = folder / "e.yaml"
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return evaluate(path, folder / "out", device="cpu", **options)


def of_bundle(folder: Path, data: dict[str, Any] | None = None, **evaluate: Any) -> dict[str, Any]:
    make_rgb_bundle(folder / "rgb")
    config = {"bootstrap": {"draws": 20, "block": 32}, "maps": 0, **evaluate}
    return {"bundles": {"rgb": str(folder / "rgb")}, "data": data or data_entries(folder), "evaluate": config}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_pool_the_set_and_leave_unlabelled_pixels_out(folder: Path) -> None:
    found = run(folder, of_bundle(folder))
    model = found.scores["models"]["fixed:1"]
    judged, wrong = 96 * 80 + 90 * 80, 10 * 80
    assert model["accuracy"] == pytest.approx(1 - wrong / judged, abs=1e-4)
    assert np.sum(model["confusion"]) == judged
    assert model["forwards"] == 2 * 3 * 4
    assert model["images"]["images/a.png"]["miou"] == 1
    low, high = model["interval"]
    assert low < model["miou"] < high < 1
    assert found.scores["reference"] == "fixed:1"
    assert found.scores["models"]["fixed:2"]["difference"]["miou"] < 0


def test_everything_at_once_is_written_and_named(folder: Path) -> None:
    entries = of_bundle(
        folder,
        data=data_entries(folder, objects=2),
        gold=True,
        objects=True,
        curve=True,
        resolutions=[1, 0.5],
        maps=1,
        paper="gleason2019",
    )
    found = run(folder, entries, command="foveate evaluate e.yaml")
    report = (found.directory / "report.md").read_text()
    written = {path.name for path in found.directory.iterdir()}
    tables = ("scores", "recall", "dice", "differences", "images", "foveation", "resolutions", "curve", "objects")
    assert {f"{name}.csv" for name in (*tables, "calibration", "reliability", "paper_1", "paper_2")} <= written
    figures = {"scores.png", "classes.png", "cost.png", "resolutions.png", "curve.png", "reliability.png"}
    assert figures | {"examples_all_images_a.png", "maps_all_images_a.png"} <= written
    assert all(f"]({name})" in report for name in written if name.endswith(".png"))
    assert "`foveate evaluate e.yaml`" in report and "torch" in report
    assert json.loads((found.directory / "scores.json").read_text())["models"].keys() == found.scores["models"].keys()
    assert not list(folder.glob("*.partial"))
    gold = {row["map"]: row for row in rows(found.directory / "foveation.csv")}
    assert gold["mean"]["paper"] == "0.129 ± 0.043"
    assert float(gold["constant 32 px"]["weighted by mIoU"]) > 0
    steps = [(row["model"], row["step in px"]) for row in rows(found.directory / "resolutions.csv")]
    assert ("fixed:2", "32") in steps and ("fixed:2", "16") in steps
    scores = {row["model"]: row for row in rows(found.directory / "scores.csv")}
    assert scores["fixed:1"]["paper mIoU"] == "69.3" and scores["mean"]["paper mIoU"] == "71.1"


def test_runs_of_two_folds_are_pooled_and_the_unfinished_named(folder: Path) -> None:
    entries = experiment(folder, bootstrap={"draws": 20}, ensembles={"both": ["small", "large"]}, gold=True, maps=1)
    for run_name in ("a/mean", "a/small", "a/large", "b/mean", "b/small", "b/large"):
        changes = {} if run_name.endswith("mean") else {"foveation": None, "policy": "fixed:1"}
        make_rgb_bundle(folder / "runs" / run_name / "bundle", **changes)
    found = run(folder, entries)
    assert found.missing == ["a/gsm", "a/soft", "b/gsm", "b/soft"]
    assert "a/gsm, a/soft, b/gsm, b/soft" in (found.directory / "report.md").read_text()
    scores = {row["model"]: row for row in rows(found.directory / "scores.csv")}
    assert list(scores) == ["mean", "small", "large", "both"]
    assert all(row["images"] == "4" for row in scores.values())
    assert int(scores["both"]["forwards"]) == 2 * int(scores["small"]["forwards"])
    assert len(rows(found.directory / "folds.csv")) == 8
    assert "over 4 images" in (found.directory / "report.md").read_text()
    assert rows(found.directory / "foveation.csv")[0]["map"] == "mean"


def test_maps_on_other_grids_than_the_fixed_networks_are_refused_at_once(folder: Path) -> None:
    entries = experiment(folder, gold=True)
    entries["models"]["fine"] = {"bundle": {"foveation": {"downsample": 4}}}
    make_rgb_bundle(folder / "runs/a/mean/bundle")
    make_rgb_bundle(folder / "runs/a/fine/bundle", foveation={"downsample": 4, "hidden": 8})
    make_rgb_bundle(folder / "runs/a/small/bundle")
    with pytest.raises(OptionInvalid, match="mean, fine and the fixed networks lie on different grids"):
        run(folder, entries)


def test_absent_classes_are_left_out_and_said(folder: Path) -> None:
    entries = of_bundle(folder, policies=["fixed:1"])
    make_rgb_bundle(folder / "rgb", classes=("red", "green", "blue"), gain=20)
    for name in ("a", "b"):
        write_pair(folder, name, np.full((40, 40, 3), (255, 0, 0), np.uint8), np.zeros((40, 40), np.uint8))
    model = run(folder, entries).scores["models"]["fixed:1"]
    assert model["miou"] == 1 and model["iou"] == {"red": 1, "green": None, "blue": None}
    assert "left out where marked –: blue, green" in (folder / "out/report.md").read_text()

    striped = np.full((40, 40, 3), (255, 0, 0), np.uint8)
    striped[:20] = (0, 0, 255)
    write_pair(folder, "a", striped, np.zeros((40, 40), np.uint8))
    model = run(folder, entries, overwrite=True).scores["models"]["fixed:1"]
    assert model["iou"]["blue"] == 0 and model["recall"]["blue"] is None  # predicted, and labelled nowhere


def test_a_complete_directory_is_replaced_only_on_request(folder: Path) -> None:
    entries = of_bundle(folder, policies=["fixed:1"], maps=0)
    run(folder, entries)
    (folder / "out" / "mine").touch()
    with pytest.raises(OutputExists):
        run(folder, entries)
    run(folder, entries, overwrite=True)
    assert not (folder / "out" / "mine").exists()


def test_an_interrupted_evaluation_goes_on_where_it_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_entries(folder, objects=2)
    entries = of_bundle(folder, data=data, gold=True, objects=True, resolutions=[0.5], maps=1)
    wanted = run(folder, entries).scores
    real, scored = evaluation.score_image, []

    def until_the_fifth(*arguments: Any) -> Any:
        if len(scored) == 4:
            raise KeyboardInterrupt
        scored.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(evaluation, "score_image", until_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        run(folder, entries, overwrite=True)
    monkeypatch.setattr(evaluation, "score_image", lambda *arguments: scored.append(arguments) or real(*arguments))
    found = run(folder, entries, overwrite=True).scores
    assert len(scored) == 3 * 2 * 2, "three policies at two resolutions on two images, each once"
    for scores in (wanted, found):
        for model in scores["models"].values():
            model["seconds"] = model["images"] = None
        for point in scores["resolutions"]:
            point["seconds"] = None
    assert found == wanted
    assert not list(folder.glob("*.partial"))


def test_nothing_finished_says_what_to_run(folder: Path) -> None:
    with pytest.raises(OptionInvalid, match="no run is finished") as caught:
        run(folder, experiment(folder))
    assert "foveate train" in caught.value.hint
    assert not (folder / "out").exists()


def test_labels_that_the_bundle_does_not_know_are_named(folder: Path) -> None:
    rules = [{"low": 0, "high": 255, "value": 7}]
    with pytest.raises(OptionInvalid, match=r"a\.png has labels of class 7") as caught:
        run(folder, of_bundle(folder, data=data_entries(folder, labels=rules)))
    assert "0 red, 1 green, 2 blue" in caught.value.hint
    assert not (folder / "out").exists()


def test_colours_and_polygons_are_labels_too(folder: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    for name in ("a", "b"):
        pixels, labels = stripes(80, 96)
        write_pair(folder, name, pixels, colours[labels])
    rules = [{"color": color, "value": k} for k, color in enumerate(colours.tolist())]
    of_colours = of_bundle(folder, data=data_entries(folder, labels=rules), policies=["fixed:1"])
    assert run(folder, of_colours).scores["models"]["fixed:1"]["miou"] == 1
    square = [[[0, 0], [16, 0], [16, 16], [0, 16], [0, 0]]]
    polygon = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}}
    polygon["properties"] = {"classification": {"name": "Red"}}
    for name in ("a", "b"):
        document = {"type": "FeatureCollection", "features": [polygon]}
        (folder / "labels" / f"{name}.geojson").write_text(json.dumps(document))
    scenes = [{"images": "images/*.png", "labels": "labels/*.geojson"}]
    data = data_entries(folder, test=scenes, train=scenes, labels=[{"name": "Red", "value": 0}])
    model = run(folder, of_bundle(folder, data=data, policies=["fixed:1"]), overwrite=True).scores["models"]["fixed:1"]
    assert model["accuracy"] == 1 and np.sum(model["confusion"]) == 2 * 16 * 16


def test_other_bands_are_refused(folder: Path) -> None:
    grey = np.zeros((40, 40), np.uint8)
    for name in ("a", "b"):
        write_pair(folder, name, grey, grey)
    with pytest.raises(BandsMismatch):
        run(folder, of_bundle(folder))
    assert not list(folder.glob("out*"))


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"reference": "nobody"}, "nobody"),
        ({"mean_over": ["violet"]}, "no class 'violet'"),
        ({"split": "validation"}, "no validation images"),
        ({"objects": True}, "which class their labels number"),
        ({"gold": True, "policies": ["fixed:1"]}, "no bank of several fields of view has a fixed network for each"),
    ],
)
def test_what_the_file_gets_wrong_is_named(folder: Path, evaluate: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionInvalid, match=message):
        run(folder, of_bundle(folder, **evaluate))
    assert not list(folder.glob("out*"))


def test_blocks_of_different_ground_are_not_compared(folder: Path) -> None:
    for name, spacing in (("near", 1.0), ("far", 2.0)):
        make_rgb_bundle(folder / name, spacing=spacing, spacing_unit="m", spacing_range=[spacing / 2, 2 * spacing])
    entries = {"bundles": {name: str(folder / name) for name in ("near", "far")}, "data": data_entries(folder)}
    with pytest.raises(OptionInvalid, match=r"bootstrap\.block.*far fixed:1|bootstrap\.block.*far"):
        run(folder, entries | {"evaluate": {"bootstrap": {"draws": 20, "block": 32}}})


def test_objects_on_ignored_ground_are_not_counted(folder: Path) -> None:
    """Two red objects, of which one is not labelled; the network finds both."""
    for path in (*folder.glob("images/*"), *folder.glob("labels/*")):
        path.unlink()
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[..., 2] = 255
    labels = np.full((64, 96), 2, np.uint8)
    for x, value in ((8, 0), (56, UNLABELLED)):
        pixels[16:48, x : x + 32] = (255, 0, 0)
        labels[16:48, x : x + 32] = value
    write_pair(folder, "a", pixels, labels + np.uint8(1) * (labels != UNLABELLED))
    rules = [{"low": 1, "high": 1, "value": 0}, {"low": 3, "high": 3, "value": 2}]
    rules.append({"low": UNLABELLED, "high": UNLABELLED, "value": None})
    found = run(folder, of_bundle(folder, data_entries(folder, labels=rules, objects=0), objects=True))
    model = found.scores["models"]["fixed:1"]
    assert (model["object_dice"], model["object_f1"]) == (1, 1)


def test_every_class_average_of_the_paper_is_the_mean_of_its_classes() -> None:
    """Caution (a) of the specification, which also catches slips of the pen here."""
    for paper in PAPER.values():
        for role, row in paper.iou.rows.items():
            if None not in row:
                average, *classes = (value for value in row if value is not None)
                assert average == pytest.approx(np.mean(classes), abs=0.11), role
                assert len(classes) == len(paper.classes)
