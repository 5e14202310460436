"""A job says that it lives, whatever it does: a service takes the work from whoever says nothing for a while."""

import numpy as np
import pytest

import raster.rows
import worker.plan
from model.bundle import load_bundle
from model.device import choose_device
from model.predictor import Predictor
from tests.bundles import CURVE, make_bundle
from tests.worker.computed import mask_of, spec_for, write_image
from tests.worker.test_adaptive import patchwork
from worker.canvas import Canvas
from worker.job import COMPUTED, LOOKED, prepared
from worker.pipeline import configuration, planned, run
from worker.preview import write_preview


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    card = {"kind": "any", "spacing": None, "mapping": "explicit", "policy": "mode", "coverage": {"curve": CURVE}}
    return make_bundle(root / "n", name="n", **card)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("coverage", ["dense", "planned", "refined"])
def test_progress_is_told_where_nothing_is_forwarded(bundle, tmp_path, monkeypatch, coverage, again):
    monkeypatch.setattr(worker.plan, "_NEAR", 300)
    pixels = np.zeros((1500, 1500, 3), np.uint8)
    pixels[:80, :80] = 200
    image = write_image(tmp_path / "i.tif", pixels, nodata=0)
    spec = spec_for(image, bundle, tmp_path, block=1, coverage=coverage, regions=False)
    if again:
        mask_of(spec)
    told = []
    run(spec, lambda stage, share: told.append((stage, share)), lambda: False)
    predictor = Predictor(load_bundle(spec.model), choose_device("cpu"))
    with prepared(spec, predictor, lambda stage, share: None) as job:
        blocks, pieces = len(list(job.placement.blocks)), len(list(job.placement.pieces()))
    assert blocks > 30
    planning = told.count(("looking", LOOKED))
    taking_up = sum(share == LOOKED and stage != "looking" for stage, share in told)
    computing = sum(LOOKED < share <= COMPUTED and stage != "assembling" for stage, share in told)
    assert again or planning >= 25
    assert taking_up >= pieces + (2 * blocks if again else blocks)
    if not again:
        assert computing >= blocks - 1
    elif coverage == "refined":  # the coarse pass is looked at again
        assert computing >= len(job.placement.cells[0]) - 1


@pytest.mark.parametrize("coverage", ["dense", "planned"])
def test_progress_is_told_while_the_plan_is_made(bundle, tmp_path, monkeypatch, coverage):
    """Of 100 gigapixels F_theta looks at the thumbnail for longer than a lease lasts."""
    monkeypatch.setattr(raster.rows, "_BAND", 4)
    image = write_image(tmp_path / "i.tif", patchwork(1500, 300))
    spec = spec_for(image, bundle, tmp_path, coverage=coverage, detail=None if coverage == "dense" else 0.5)
    predictor, told = Predictor(load_bundle(spec.model), choose_device("cpu")), []
    with prepared(spec, predictor, lambda stage, share: None) as job:
        canvas = Canvas(spec.canvas, configuration(job, predictor))
        planned(job, canvas, predictor, lambda stage, share: told.append((stage, share)))
    rows = -(-1500 // predictor.card.foveation.downsample)
    assert told.count(("looking", LOOKED)) > rows / 4


def test_progress_is_told_while_a_preview_is_written(bundle, tmp_path):
    """Of 100 gigapixels it reads 40,000 roots' scores, which are some 27 GB."""
    image = write_image(tmp_path / "i.tif", patchwork(1500, 300))
    spec = spec_for(image, bundle, tmp_path, coverage="refined")
    mask_of(spec)
    spec.preview.unlink()
    predictor, told = Predictor(load_bundle(spec.model), choose_device("cpu")), []
    with prepared(spec, predictor, lambda stage, share: None) as job:
        canvas = Canvas(spec.canvas, configuration(job, predictor))
        plan, _ = planned(job, canvas, predictor, lambda stage, share: None)
        write_preview(job, job.tree, plan, canvas, lambda: told.append(spec.preview.exists()))
    assert told == [False] * len(job.placement.cells[0]) and spec.preview.exists()
    assert len(told) > 5
