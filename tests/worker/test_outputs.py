"""The whole pipeline into a directory: the layers on request, late damage, and the same bytes however it got there."""

import hashlib
import json
import resource
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from PIL import Image
from rio_cogeo.cogeo import cog_validate

import worker.manifest
from foveate.errors import DiskFull, WorkerLost
from model.predictor import Predictor
from raster import regions
from raster.uncertainty import mean_halved
from raster.whole_file import disk_full
from raster.write import MaskWriter
from tests.bundles import make_bundle
from tests.worker.computed import broken_tiles, spec_for, write_image
from tests.worker.test_compute import noise
from worker import assemble
from worker.job import LOOKED
from worker.pipeline import run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    return make_bundle(root / "e", name="e", kind="any", spacing=None, mapping="explicit", policy="mode")


def made(spec):
    """The manifest of the job, and the digest of every file but it."""
    manifest = run(spec, lambda stage, share: None, lambda: False)
    files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    assert json.loads((spec.out / "manifest.json").read_text()) == manifest
    return manifest, files


BOTH = ("uncertainty", "probabilities")


@pytest.mark.parametrize("m", [1, 4])
def test_uncertainty_and_probabilities_belong_to_the_mask(bundle, tmp_path, m):
    pixels = noise(700, 611)
    pixels[:200, :300] = 0
    image = write_image(tmp_path / "i.tif", pixels, nodata=0)
    spec = spec_for(image, bundle, tmp_path, block=3, outputs=list(BOTH), mask_downsample=m)
    manifest, files = made(spec)
    assert {"uncertainty.tif", "probabilities.zarr"} <= files.keys()
    assert manifest["files"]["probabilities.zarr"]["bytes"] > 0
    with rasterio.open(spec.out / "mask.tif") as mask, rasterio.open(spec.out / "uncertainty.tif") as file:
        labels, uncertainty = mask.read(1), file.read(1)
        assert (file.transform, file.crs, file.shape) == (mask.transform, mask.crs, mask.shape)
        assert np.isnan(file.nodata)
        assert file.dtypes == ("float32",)
        assert bool(file.overviews(1)) == (m == 1)
    assert cog_validate(spec.out / "uncertainty.tif", strict=True)[0]
    store = zarr.open_array(spec.out / "probabilities.zarr", mode="r")
    probabilities = store[:].astype(np.float64)
    assert probabilities.shape == (2, *labels.shape)
    assert (np.isnan(uncertainty) == (labels == 255)).all()
    assert (np.isnan(probabilities).any(axis=0) == (labels == 255)).all()
    seen = labels != 255
    assert np.allclose(probabilities[:, seen].sum(axis=0), 1, atol=2e-3)
    values = np.array([entry["value"] for entry in store.attrs["classes"]])
    clear = np.abs(probabilities[0] - probabilities[1])[seen] > 2e-3
    assert (values[probabilities[:, seen].argmax(axis=0)] == labels[seen])[clear].all()
    shares = probabilities[:, seen].clip(1e-9)
    assert np.allclose(-(shares * np.log2(shares)).sum(axis=0), uncertainty[seen], atol=5e-3)
    assert (uncertainty[seen] * 1024 % 1 == 0).all()
    assert tuple(store.attrs["transform"]) == tuple(rasterio.open(spec.out / "mask.tif").transform)[:6]


def test_a_service_gets_the_store_as_one_file_that_zarr_opens(bundle, tmp_path):
    image = write_image(tmp_path / "i.tif", noise(300, 280))
    plain = spec_for(image, bundle, tmp_path / "plain", outputs=["probabilities"])
    archived = spec_for(image, bundle, tmp_path / "one", outputs=["probabilities"]).model_copy(update={"archive": True})
    made(plain)
    _, files = made(archived)
    assert "probabilities.zarr.zip" in files
    assert "probabilities.zarr" not in files
    whole = zarr.open_array(plain.out / "probabilities.zarr", mode="r")[:]
    with zarr.storage.ZipStore(archived.out / "probabilities.zarr.zip", mode="r") as store:
        assert np.array_equal(zarr.open_array(store, mode="r")[:], whole)
    with zipfile.ZipFile(archived.out / "probabilities.zarr.zip") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_taken_up_again_every_file_is_the_same(bundle, tmp_path):
    image = write_image(tmp_path / "i.tif", noise(700, 480))
    _, whole = made(spec_for(image, bundle, tmp_path / "whole", block=3, batch=2, outputs=list(BOTH)))
    cut = spec_for(image, bundle, tmp_path / "cut", block=3, batch=2, outputs=list(BOTH))
    calls = iter(range(10**6))

    def stop(stage, share):
        if share > LOOKED and next(calls) > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cut, stop, lambda: False)
    kept = len(list(cut.canvas.glob("blocks/*.labels.zip")))
    assert kept > 3
    shutil.rmtree(cut.out)
    assert made(cut)[1] == whole


def test_without_polygons_nothing_else_changes_and_its_blocks_serve_a_job_with_them(bundle, tmp_path, monkeypatch):
    image = write_image(tmp_path / "i.tif", noise(530, 480))
    _, whole = made(spec_for(image, bundle, tmp_path / "whole", block=3))
    spec = spec_for(image, bundle, tmp_path / "bare", block=3, regions=False)
    with monkeypatch.context() as patched:
        patched.setattr(regions, "_start", lambda: pytest.fail("a process for polygons was started"))
        manifest, bare = made(spec)
    assert whole.keys() - bare.keys() == {"regions.geojson"}
    assert bare == {name: digest for name, digest in whole.items() if name in bare}
    assert manifest["parameters"]["regions"] is False
    assert not [warning for warning in manifest["warnings"] if "polygon" in warning or "regions" in warning]
    shutil.rmtree(spec.out)
    monkeypatch.setattr(Predictor, "scores", lambda *_: pytest.fail("a committed block was computed again"))
    again = spec.model_copy(update={"options": spec.options.model_copy(update={"regions": True})})
    assert made(again)[1] == whole


def test_damage_that_shows_after_its_rows_were_handed_on_makes_them_new(bundle, tmp_path, monkeypatch):
    """The rows are taken as if the damage were unknown at first, as where only a later patch reads the finest level."""
    image = broken_tiles(tmp_path / "i.tif", noise(1024, 1024), [17])
    manifest, known = made(spec_for(image, bundle, tmp_path / "known", block=3))
    assert manifest["counts"]["covered_share"] == 1 - 64**2 / 1024**2
    begun = []
    begin, hand_on = assemble.Assembly._begin, assemble.Assembly.hand_on
    monkeypatch.setattr(assemble.Assembly, "_begin", lambda self: (begun.append(1), begin(self))[1])
    late = lambda self, row, damaged: hand_on(self, row, damaged if len(begun) > 1 else frozenset())  # noqa: E731
    monkeypatch.setattr(assemble.Assembly, "hand_on", late)
    spec = spec_for(image, bundle, tmp_path / "late", block=3)
    assert made(spec)[1] == known
    assert len(begun) == 2
    assert not [path for path in spec.out.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("losses", "kind"), [(1, None), (2, DiskFull)])
def test_a_mask_that_lost_pixels_is_written_once_more(bundle, tmp_path, monkeypatch, losses, kind):
    image = write_image(tmp_path / "i.tif", noise(530, 611))
    _, wanted = made(spec_for(image, bundle, tmp_path / "whole", block=3, outputs=list(BOTH)))
    left = [disk_full(tmp_path, "pixels that were written are not in the file")] * losses
    checked = MaskWriter._check

    def lossy(self, copy, path):
        if left:
            raise left.pop()
        checked(self, copy, path)

    monkeypatch.setattr(MaskWriter, "_check", lossy)
    spec = spec_for(image, bundle, tmp_path / "lossy", block=3, outputs=list(BOTH))
    if kind is None:
        assert made(spec)[1] == wanted
    else:
        with pytest.raises(kind):
            run(spec, lambda stage, share: None, lambda: False)
    assert not left


def test_a_vectoriser_that_was_killed_costs_an_attempt(bundle, tmp_path, monkeypatch):
    image = write_image(tmp_path / "i.tif", noise(300, 280))
    write = regions.RegionsProcess.write
    monkeypatch.setattr(regions.RegionsProcess, "write", lambda self, rows: (self.kill(), write(self, rows))[1])
    with pytest.raises(WorkerLost, match=r"writes regions\.geojson") as lost:
        made(spec_for(image, bundle, tmp_path))
    assert lost.value.retryable


def test_the_mean_of_four_passes_over_what_was_not_examined():
    values = np.array([[[0.5, np.nan, np.nan, np.nan], [1.0, 0.0, np.nan, np.nan]]], np.float32)
    assert np.array_equal(mean_halved(values), [[[0.5, np.nan]]], equal_nan=True)


BEFORE = Path(__file__).parent / "masks_of_e1fa5fe.npz"
"""The masks that commit e1fa5fe made of this image, before the engine was rebuilt as a pipeline."""


@pytest.mark.parametrize(("policy", "mapping"), [("mode", "explicit"), ("mean", "implicit")])
def test_masks_stay_what_they_were(tmp_path, policy, mapping):
    """Design 5: at most 1e-4 of the pixels differ for the same reader and precision."""
    made_bundle = make_bundle(tmp_path / "b", name="b", kind="any", spacing=None, mapping=mapping, policy=policy)
    image = write_image(tmp_path / "i.tif", noise(530, 611))
    spec = spec_for(image, made_bundle, tmp_path, block=3)
    made(spec)
    with rasterio.open(spec.out / "mask.tif") as mask, np.load(BEFORE) as before:
        assert len(np.unique(before[policy])) == 2
        assert (mask.read(1) != before[policy]).mean() <= 1e-4


@pytest.mark.parametrize("spacing", [None, 0.5])
@pytest.mark.parametrize("m", [1, 8, 64, 512])
def test_a_coarse_mask_lies_on_its_pixels_and_tells_their_area(tmp_path, m, spacing):
    """Bright from column 512 on; the mask's last pixels reach beyond the image, and no class has ground there."""
    bundle = make_bundle(tmp_path / "b", name="b", kind="any", spacing=None, policy="fixed:1")
    pixels = np.zeros((397, 1111, 3), np.uint8)
    pixels[:, 512:] = 255
    if spacing is None:
        image = tmp_path / "i.png"
        Image.fromarray(pixels).save(image)
    else:
        place = rasterio.Affine(spacing, 0, 5e5, 0, -spacing, 27e5)
        image = write_image(tmp_path / "i.tif", pixels, crs="EPSG:32640", transform=place)
    spec = spec_for(image, bundle, tmp_path, mask_downsample=m)
    made(spec)
    areas = {
        entry["name"]: entry["area"] for entry in json.loads((spec.out / "statistics.json").read_text())["classes"]
    }
    pixel = 1 if spacing is None else json.loads((spec.out / "manifest.json").read_text())["image"]["spacing"][0] ** 2
    true = {"dark": 512 * 397 * pixel, "bright": 599 * 397 * pixel}
    assert areas == pytest.approx(true, rel=1e-3 if spacing else 0)
    overlay = np.asarray(Image.open(spec.out / "overlay.png").convert("RGB"), int)[:397, :1111]
    drawn = np.abs(np.diff(overlay[100], axis=0)).sum(axis=1)
    assert abs(int(drawn[400:700].argmax()) + 400 - 511) <= 2


@pytest.mark.parametrize("order", ["red green blue", "blue green red", "nir red green blue"])
def test_the_overlay_has_peoples_colours_whatever_the_bundles_order(tmp_path, order):
    red = np.zeros((3, 80, 90), np.uint8)
    red[0] = 255
    bands = order.split()
    stored = {"red": red[0], "green": red[1], "blue": red[2], "nir": 100 + red[1]}
    pixels = np.stack([stored[name] for name in bands], axis=2)
    image = write_image(tmp_path / "i.tif", pixels, photometric="MINISBLACK")
    options = {"bands": list(range(1, len(bands) + 1))}
    bundle = make_bundle(tmp_path / "b", name="b", kind="any", spacing=None, bands=bands, constant=0)
    spec = spec_for(image, bundle, tmp_path, regions=False, **options)
    made(spec)
    plain = make_bundle(tmp_path / "p", name="p", kind="any", spacing=None, constant=0)
    expected = spec_for(write_image(tmp_path / "r.tif", np.moveaxis(red, 0, 2)), plain, tmp_path / "p", regions=False)
    made(expected)
    assert (spec.out / "overlay.png").read_bytes() == (expected.out / "overlay.png").read_bytes()


def test_progress_is_told_while_large_files_are_hashed(bundle, tmp_path, monkeypatch):
    """Probabilities are many gigabytes, which a slow disk takes longer to read again than a lease lasts."""
    monkeypatch.setattr(worker.manifest, "_READ_BYTES", 1000)
    spec = spec_for(write_image(tmp_path / "i.tif", noise(300, 280)), bundle, tmp_path, outputs=["probabilities"])
    told = []
    found = run(spec, lambda stage, share: told.append(stage), lambda: False)
    here = (file["bytes"] for name, file in found["files"].items() if name != "regions.geojson")
    assert told.count("assembling") > sum(here) / 1000
    for name, file in found["files"].items():
        if (spec.out / name).is_file():
            assert hashlib.sha256((spec.out / name).read_bytes()).hexdigest() == file["sha256"]


def test_the_peak_is_the_jobs_own(bundle, tmp_path):
    """An engine lives on: what an earlier job took is not this one's."""
    np.ones(400_000_000, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    manifest, _ = made(spec_for(write_image(tmp_path / "i.tif", noise(90, 90)), bundle, tmp_path))
    assert 0 < manifest["peak_memory_bytes"] < before - 200_000_000
