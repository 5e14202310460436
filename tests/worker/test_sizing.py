"""Jobs on a device that tries its batches out, is late with its results and runs out of memory: a fake of a GPU."""

import numpy as np
import pytest
import rasterio
import torch

import worker.pipeline
from foveate.errors import MemoryTooSmall
from model.bundle import load_bundle
from model.device import Ferry, Landing
from model.predictor import FEW, Predictor
from tests.bundles import CURVE, make_bundle
from tests.model.test_predictor import Cramped
from tests.worker.computed import spec_for, write_image
from tests.worker.test_compute import noise
from worker.job import LOOKED
from worker.sizing import evened

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("most", "loads", "batch"),
    [
        (64, [65, 65, 33], 33),  # 64 would make 320 of 163
        (64, [128, 128], 64),
        (16, [7], 9),
        (8, [], 8),
        (1, [5], 1),
    ],
)
def test_batches_are_filled_up_as_little_as_can_be(most, loads, batch):
    assert evened(most, loads) == batch


class Late:
    """An event that nobody sees happen, unless he waits for it."""

    def __init__(self, here, there):
        self.here, self.there = here, there

    def synchronize(self):
        for name, array in self.there.items():
            self.here[name].copy_(array)


class LateFerry(Ferry):
    """What comes down is what it was when it was asked for, and nonsense until it is waited for."""

    def down(self, arrays):
        there = {name: array.clone() for name, array in arrays.items()}
        here = {name: torch.zeros_like(array) for name, array in there.items()}
        return Landing(here, Late(here, there))


class Accelerator(Predictor):
    """Gains by any batch, by its own account; more than 6 patches do not fit once the job runs."""

    def __init__(self, bundle, device):
        super().__init__(bundle, device)
        self.tries_batches, self.ferry = True, LateFerry(device)
        self.network = self.cramped = Cramped(self.network, 6)
        self.gaining = True

    def _trial(self, count, mixed):
        return 1.0 if self.gaining else float(count)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_image(tmp_path_factory.mktemp("image") / "i.tif", noise(530, 611))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root, common = tmp_path_factory.mktemp("bundles"), {"kind": "any", "spacing": None, "mapping": "explicit"}
    return {
        "dense": make_bundle(root / "e", name="e", policy="mode", **common),
        "mixed": make_bundle(root / "i", name="i", policy="mean", **(common | {"mapping": "implicit"})),
        "refined": make_bundle(
            root / "r", name="r", policy="mode", fovs=[64, 128, 256], coverage={"curve": CURVE}, **common
        ),
    }


def ran(spec, predictor, monkeypatch, stop_after=None):
    """The job's manifest and its mask; `stop_after`: the job is cut off after so many batches."""
    monkeypatch.setattr(worker.pipeline, "warm_predictor", lambda spec: predictor)
    calls = iter(range(10**9))

    def report(stage, share):
        if share > LOOKED and stop_after is not None and next(calls) >= stop_after:
            raise KeyboardInterrupt

    manifest = worker.pipeline.run(spec, report, lambda: False)
    with rasterio.open(spec.out / "mask.tif") as file:
        return manifest, file.read(1)


@pytest.mark.parametrize(
    ("bundle", "options"),
    [("dense", {}), ("mixed", {}), ("refined", {"coverage": "refined", "detail": 0.5})],
)
def test_a_late_and_cramped_device_gives_the_mask_of_the_cpu(bundles, image, tmp_path, monkeypatch, bundle, options):
    loaded = load_bundle(bundles[bundle])
    specs = [spec_for(image, bundles[bundle], tmp_path / name, block=5, **options) for name in ("cpu", "other")]
    manifest, wanted = ran(specs[0], Predictor(loaded, CPU), monkeypatch)
    assert manifest["parameters"]["batch"] == FEW
    device = Accelerator(loaded, CPU)
    manifest, got = ran(specs[1], device, monkeypatch)
    assert manifest["parameters"]["batch"] > 6
    assert max(device.cramped.seen) == manifest["parameters"]["batch"], "tried as found"
    assert (got != wanted).mean() <= 1e-4
    assert len(np.unique(wanted)) > 1


def test_a_job_that_goes_on_keeps_the_batch_that_was_found(bundles, image, tmp_path, monkeypatch):
    loaded = load_bundle(bundles["dense"])
    whole, cut = (spec_for(image, bundles["dense"], tmp_path / name, block=3) for name in ("whole", "cut"))
    manifest, wanted = ran(whole, Accelerator(loaded, CPU), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        ran(cut, Accelerator(loaded, CPU), monkeypatch, stop_after=20)
    assert any(cut.canvas.glob("blocks/*.labels.zip"))
    assert not (cut.out / "mask.tif").exists()
    again = Accelerator(loaded, CPU)
    again.gaining = False
    for path in cut.out.glob("*"):
        path.unlink()
    cut.out.rmdir()
    resumed, got = ran(cut, again, monkeypatch)
    assert resumed["parameters"]["batch"] == manifest["parameters"]["batch"] > FEW
    assert resumed["files"] == manifest["files"]
    assert (got == wanted).all()


@pytest.mark.parametrize("where", ["open_block", "distribution", "__init__"])
def test_memory_that_runs_out_elsewhere_than_in_a_batch_is_named(bundles, image, tmp_path, monkeypatch, where):
    def cramped(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    spec = spec_for(image, bundles["mixed"], tmp_path, block=3, regions=False)
    monkeypatch.setattr(worker.pipeline, "_warm", {})
    monkeypatch.setattr(Predictor, where, cramped)
    with pytest.raises(MemoryTooSmall, match=r"memory of cpu ran out.*2 GiB"):
        worker.pipeline.run(spec, lambda *_: None, lambda: False)
