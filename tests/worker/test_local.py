"""`foveate segment` as a process, killed in the middle and asked again: the same bytes, and little done twice."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

import raster.convert
from foveate.cli import run
from foveate.errors import MemoryTooSmall
from model.bundle import load_bundle
from model.device import choose_device
from model.predictor import Predictor
from tests.bundles import make_bundle
from tests.shared import DATA
from tests.worker.computed import spec_for, write_image
from worker.job import prepared

ROOT = Path(__file__).parents[2]
BLOCK = 3
PATIENCE = 120.0
"""Seconds after which a process that is waited for has failed; none comes near it."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A real aerial photograph, 64 blocks of it, and a bundle."""
    root = tmp_path_factory.mktemp("scene")
    bundle = make_bundle(root / "e", name="e", kind="any", spacing=None, mapping="explicit", policy="mode")
    with rasterio.open(DATA / "geotiff" / "cogeo.tif") as source:
        pixels = np.moveaxis(source.read((1, 2, 3), out_shape=(3, 1180, 1180)), 0, 2)
    return write_image(root / "scene.tif", pixels), bundle


def segment(scene, out: Path, *more: str) -> "subprocess.Popen[str]":
    image, bundle = scene
    options = ["--block", str(BLOCK), "--batch", "1", "--outputs", "uncertainty", *more]
    foveate = str(Path(sys.executable).with_name("foveate"))
    command = [foveate, "segment", str(image), "--out", str(out), "--model", str(bundle)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *options], env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finished(process: "subprocess.Popen[str]") -> str:
    """What it said; it must have ended well."""
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def committed(out: Path) -> dict[str, int]:
    """When each block was committed."""
    blocks = (out.with_name(out.name + ".partial") / "canvas" / "blocks").glob("[0-9]*.labels.zip")
    return {path.name: path.stat().st_mtime_ns for path in blocks}


def digests(out: Path) -> dict[str, str]:
    files = json.loads((out / "manifest.json").read_text())["files"]
    return {name: entry["sha256"] for name, entry in files.items()}


def test_overwriting_replaces_results_and_nothing_else(tmp_path, capsys):
    bundle = make_bundle(tmp_path / "e", name="e", kind="any", spacing=None)
    project = tmp_path / "project"
    project.mkdir()
    image = write_image(project / "a.tif", np.full((100, 100, 3), 9, np.uint8))

    def ask(out: Path) -> int:
        return run(["segment", str(image), "--out", str(out), "--model", str(bundle), "--overwrite"])

    assert ask(project) == 2
    assert "is not replaced" in capsys.readouterr().err
    assert list(project.iterdir()) == [image]
    out, link = tmp_path / "out", tmp_path / "link"
    (tmp_path / ".out.older").mkdir()
    (tmp_path / ".out.older" / "x").touch()  # an interruption's
    assert ask(out) == 0
    assert not (tmp_path / ".out.older").exists()
    assert ask(out) == 0
    link.symlink_to(out)
    assert ask(link) == 0
    assert (link / "mask.tif").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "link", "out", "project"]


def a_command(tmp_path, out, *more):
    bundle = tmp_path / "e"
    if not bundle.exists():
        make_bundle(bundle, name="e", kind="any", spacing=None)
    return lambda image: run(["segment", str(image), "--out", str(out), "--model", str(bundle), *more])


def test_the_place_of_the_work_holds_nothing_else(tmp_path, capsys):
    mine = tmp_path / "scene.partial"
    mine.mkdir()
    image = write_image(mine / "a.tif", np.full((100, 100, 3), 9, np.uint8))
    assert a_command(tmp_path, tmp_path / "scene")(image) == 2
    assert f"{mine}, where the work would lie, holds a.tif" in capsys.readouterr().err
    assert list(mine.iterdir()) == [image]
    (mine / "canvas").mkdir()
    assert a_command(tmp_path, tmp_path / "scene")(image) == 2
    assert "holds the image" in capsys.readouterr().err
    moved = image.rename(tmp_path / "a.tif")
    for left in ("preview.tif", "preview.tif.aux.xml", ".preview.tif.1.part"):  # by a job that was killed
        (mine / left).touch()
    (mine / "mask-1").mkdir()
    assert a_command(tmp_path, tmp_path / "scene")(moved) == 0
    assert not mine.exists()


@pytest.mark.parametrize("way", ["dots", "link", "series"])
def test_an_image_within_the_result_is_not_replaced(tmp_path, capsys, monkeypatch, way):
    out = tmp_path / "r"
    image = write_image(tmp_path / "a.tif", np.full((100, 100, 3), 9, np.uint8))
    assert a_command(tmp_path, out)(image) == 0
    image.rename(out / "a.tif")
    monkeypatch.chdir(out)
    named = {"dots": (Path("a.tif"), Path("../r")), "link": (tmp_path / "link.tif", out), "series": (out, out / "in")}
    asked, target = named[way]
    if way == "link":
        asked.symlink_to(out / "a.tif")
    assert a_command(tmp_path, target, "--overwrite")(asked) == 2
    assert ("lies in the image" if way == "series" else "is not replaced") in capsys.readouterr().err
    assert (out / "a.tif").is_file()


@pytest.mark.slow
def test_what_comes_to_lie_at_out_meanwhile_is_not_replaced(scene, tmp_path):
    out = tmp_path / "out"
    working = segment(scene, out)
    while not committed(out):
        time.sleep(0.01)
    out.mkdir()
    (out / "notes").write_text("precious")
    _, said = working.communicate(timeout=PATIENCE)
    assert working.returncode == 2
    assert "it appeared meanwhile" in said
    (out / "notes").rename(tmp_path / "notes")
    out.rmdir()
    before = committed(out)
    finished(segment(scene, out))
    assert before and (out / "mask.tif").is_file() and (tmp_path / "notes").read_text() == "precious"


def test_a_refusal_leaves_nothing(tmp_path):
    image = write_image(tmp_path / "a.tif", np.full((100, 100, 3), 9, np.uint8))
    assert a_command(tmp_path, tmp_path / "o", "--memory", "0.3")(image) == 1
    (tmp_path / "e" / "weights.safetensors").unlink()
    assert a_command(tmp_path, tmp_path / "o")(image) == 2
    assert run(["segment", str(image), "--out", str(tmp_path / "o"), "--model", str(tmp_path / "none")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "e"]


@pytest.mark.parametrize("place", ["file/res", "/proc/res", "other"])
def test_a_place_where_no_result_can_lie_is_named(scene, tmp_path, capsys, place):
    (tmp_path / "file").touch()
    (tmp_path / "other.partial").touch()
    image, bundle = scene
    assert run(["segment", str(image), "--out", str(tmp_path / place), "--model", str(bundle)]) == 2
    said = capsys.readouterr().err
    assert f"--out: the directory {tmp_path / place}.partial cannot be made" in said


def test_a_place_that_is_not_utf8_is_refused_before_any_work(scene, tmp_path, capsys):
    image, bundle = scene
    out = tmp_path / os.fsdecode(b"o\xff")
    assert run(["segment", str(image), "--out", str(out), "--model", str(bundle)]) == 2
    assert "is not UTF-8" in capsys.readouterr().err
    assert not out.with_name(out.name + ".partial").exists()


@pytest.mark.parametrize("amount", ["nan", "inf", "0"])
def test_no_amount_of_memory_is_refused(scene, tmp_path, capsys, amount):
    image, bundle = scene
    command = ["segment", str(image), "--out", str(tmp_path / "o"), "--model", str(bundle), "--memory", amount]
    assert run(command) == 2
    assert f"--memory {amount}" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_beside_a_link_lies_what_belongs_to_it(tmp_path):
    """As git-annex and DVC keep large files: elsewhere, under another name."""
    (tmp_path / "store").mkdir()
    write_image(tmp_path / "store" / "0a1b2c", np.full((300, 200, 3), 9, np.uint8), transform=None)
    (tmp_path / "a.tif").symlink_to(tmp_path / "store" / "0a1b2c")
    (tmp_path / "a.tfw").write_text("2\n0\n0\n-2\n500001\n3999999\n")
    bundle = make_bundle(tmp_path / "e", name="e", kind="any", spacing=None)
    out = tmp_path / "out"
    assert run(["segment", str(tmp_path / "a.tif"), "--out", str(out), "--model", str(bundle)]) == 0
    with rasterio.open(out / "mask.tif") as mask:
        assert list(mask.transform)[:6] == [2, 0, 500_000, 0, -2, 4_000_000]


def test_the_directory_of_a_finished_run_stands_for_its_bundle(tmp_path, capsys):
    image = write_image(tmp_path / "i.tif", np.zeros((90, 90, 3), np.uint8))
    trained, out = tmp_path / "runs" / "mode", tmp_path / "out"
    make_bundle(trained / "bundle", name="learnt", kind="any", spacing=None, mapping="explicit", policy="mode")
    words = ["segment", str(image), "--out", str(out), "--model", str(trained)]
    (trained / "bundle").rename(tmp_path / "not yet")
    (trained / "losses.csv").write_text("step,loss\n1,0.7\n2,0.6\n")
    assert run(words) == 2
    said = capsys.readouterr().err
    assert "has not finished (losses.csv ends at step 2)" in said
    assert "foveate train" in said
    assert not list(tmp_path.glob("out*"))
    (tmp_path / "not yet").rename(trained / "bundle")
    assert run(words) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model"]["name"] == manifest["parameters"]["model"] == "learnt"


@pytest.mark.parametrize("coverage", ["refined", "planned", "dense"])
def test_a_shipped_bundle_takes_every_overlap_and_output_in_the_usual_memory(tmp_path, coverage):
    image = write_image(tmp_path / "i.tif", np.full((300, 400, 3), 90, np.uint8))
    predictor = Predictor(load_bundle(ROOT / "bundles" / "landcover"), choose_device("cpu"))
    asked = {"coverage": coverage, "detail": None if coverage == "dense" else 0.8}
    for overlap in (0.0, 0.1, 0.25, 0.5):
        spec = spec_for(
            image,
            predictor.bundle.directory,
            tmp_path,
            overlap=overlap,
            outputs=["uncertainty", "probabilities"],
            **asked,
        )
        with prepared(spec, predictor, lambda stage, share: None) as job:
            assert job.budget.block >= 1
    with (
        pytest.raises(MemoryTooSmall, match=r"landcover.*overlap 0\.5") as refused,
        prepared(spec.model_copy(update={"memory_gb": 1.1}), predictor, lambda stage, share: None),
    ):
        pass
    enough = float(re.search(r"at least (\d+\.\d)", refused.value.hint)[1])
    with prepared(spec.model_copy(update={"memory_gb": enough}), predictor, lambda stage, share: None) as job:
        assert job.budget.block >= 1


@pytest.mark.parametrize(("flat", "converted"), [(10_000, 300 * 400), (1_000_000, 0)])
def test_what_it_costs_to_make_missing_levels_is_told(tmp_path, monkeypatch, flat, converted):
    monkeypatch.setattr(raster.convert, "_FLAT_PIXELS", flat)
    image = write_image(tmp_path / "i.tif", np.full((300, 400, 3), 90, np.uint8))
    bundle = make_bundle(tmp_path / "e", name="e", kind="any", spacing=None, mapping="explicit", policy="fixed:1")
    assert run(["segment", str(image), "--out", str(tmp_path / "out"), "--model", str(bundle)]) == 0
    counts = json.loads((tmp_path / "out/manifest.json").read_text())["counts"]
    assert counts["pixels_converted"] == converted
    # The overlay shows an image of this size as it is, and the patches take what was decoded for it.
    assert counts["pixels_decoded"] >= counts["pixels_needed"] == 300 * 400


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_and_ends_with_the_same_bytes(scene, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    finished(segment(scene, whole))
    blocks = json.loads((whole / "manifest.json").read_text())["counts"]["blocks"]
    assert blocks > 40
    moment = random.Random(7)
    kept: dict[str, int] = {}
    for share in (0.2, 0.5, 0.8):
        process = segment(scene, out)
        deadline = time.monotonic() + PATIENCE
        while len(committed(out)) < share * blocks:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = committed(out)
        # Nothing that was committed is ever computed again: each kill costs the block in hand, and no more.
        assert kept.items() <= now.items()
        assert not out.exists()
        assert len(list((tmp_path / "out.partial" / "scratch").glob("mask-*"))) == 1
        kept = now
    finished(segment(scene, out))
    assert digests(out) == digests(whole)
    assert not out.with_name("out.partial").exists()


@pytest.mark.slow
def test_other_parameters_are_refused_with_the_difference_and_nothing_is_lost(scene, tmp_path):
    out = tmp_path / "out"
    process = segment(scene, out)
    deadline = time.monotonic() + PATIENCE
    while len(committed(out)) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = committed(out)
    other = segment(scene, out, "--overlap", "0.5")
    _, said = other.communicate(timeout=PATIENCE)
    assert other.returncode == 2
    assert "overlap: 0.25 there, 0.5 asked" in said
    assert committed(out) == kept
    finished(segment(scene, out))
