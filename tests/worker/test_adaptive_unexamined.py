"""Adaptive coverage where there is nothing to examine: damage, no data, glass; its cost there, and its previews."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from tests.bundles import BRIGHT
from tests.raster.svs import write_svs
from tests.shared import DATA
from tests.worker.adaptive import COVERAGES, P, make_tree_bundle, patchwork
from tests.worker.computed import break_tiles, broken_tiles, mask_of, spec_for, write_image
from worker.assemble import Assembly
from worker.pipeline import run


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    return {"nested": make_tree_bundle(root / "n"), "constant": make_tree_bundle(root / "c", constant=BRIGHT)}


@pytest.fixture
def begun(monkeypatch):
    """How often the files of a result were begun."""
    found = []
    begin = Assembly._begin
    monkeypatch.setattr(Assembly, "_begin", lambda self: found.append(self) or begin(self))
    return found


@pytest.mark.parametrize("coverage", COVERAGES)
def test_damage_is_255_and_every_row_is_written_once(bundles, tmp_path, begun, coverage):
    image = broken_tiles(tmp_path / "i.tif", patchwork(1024, 1024), [17])
    spec = spec_for(image, bundles["constant"], tmp_path, coverage=coverage, detail=0.5, block=1)
    run(spec, lambda stage, share: None, lambda: False)
    with rasterio.open(spec.out / "mask.tif") as file:
        mask = file.read(1)
    wanted = np.full((1024, 1024), BRIGHT, np.uint8)
    wanted[64:128, 64:128] = 255
    assert (mask == wanted).all()
    assert len(begun) == 1


def test_damage_that_only_the_coarse_pass_meets_is_known_before_rows_are_written(bundles, tmp_path, begun):
    """Roots are read from a level that neither the thumbnail nor their children are read from."""
    side = 2560
    image = write_image(tmp_path / "i.tif", patchwork(side, side), compress="deflate")
    with rasterio.open(image, "r+") as file:
        file.build_overviews([2, 4, 8, 16, 32], Resampling.average)
    break_tiles(image, [13], width=side // 4)
    spec = spec_for(image, bundles["constant"], tmp_path, coverage="refined", detail=0.5, block=1, regions=False)
    run(spec, lambda stage, share: None, lambda: False)
    with rasterio.open(spec.out / "mask.tif") as file:
        mask = file.read(1)
    wanted = np.full((side, side), BRIGHT, np.uint8)
    wanted[256:512, 768:1024] = 255
    assert (mask == wanted).all()
    assert len(begun) == 1


def test_a_preview_shows_no_class_where_there_is_no_data(bundles, tmp_path):
    pixels = patchwork(500, 700).clip(1)
    pixels[40:136, 80:280] = pixels[:, 400:416] = 0
    image = write_image(tmp_path / "i.tif", pixels, nodata=0)
    spec = spec_for(image, bundles["nested"], tmp_path, coverage="refined", detail=0.5)
    previews = []

    def watch(stage, share):
        if stage.startswith("refining") and not previews:
            with rasterio.open(spec.preview) as file:
                previews.append(file.read(1))

    run(spec, watch, lambda: False)
    valid = (pixels[..., 0] > 0).reshape(125, 4, 175, 4).any((1, 3))
    assert ((previews[0] != 255) == valid).all()


@pytest.mark.parametrize("coverage", COVERAGES)
def test_no_data_costs_nothing(bundles, tmp_path, coverage):
    pixels = patchwork(900, 900)
    pixels[:, 280:] = 0
    pixels[:, :280] = pixels[:, :280].clip(1)
    image = write_image(tmp_path / "i.tif", pixels, nodata=0)
    spec = spec_for(image, bundles["nested"], tmp_path, coverage=coverage, detail=1.0)
    counts = run(spec, lambda stage, share: None, lambda: False)["counts"]
    assert counts["forwards_dense"] == 19 * 6
    squares = 19 * 7  # of the finest level, one column of which lies around the border
    assert counts["forwards"] <= (1.0 if coverage == "planned" else 1.4) * squares + 10
    with rasterio.open(spec.out / "mask.tif") as file:
        mask = file.read(1)
    assert (mask[:, 280:] == 255).all()
    assert (mask[:, :280] != 255).all()


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("roi", [None, (210, 333, 290.5, 201)])
def test_forwards_are_told_against_those_that_dense_coverage_makes(bundles, tmp_path, coverage, roi):
    pixels = patchwork(700, 900).clip(1)
    rows, columns = np.ogrid[:700, :900]
    pixels[(rows * 7 + columns * 3) % 400 < 250] = 0  # slanted stripes, so that borders of data fall everywhere
    image = write_image(tmp_path / "i.tif", pixels, nodata=0)
    told = {}
    for asked in ("dense", coverage):
        options = {"policy": "fixed:1"} if asked == "dense" else {"detail": 0.3}
        spec = spec_for(image, bundles["nested"], tmp_path / asked, coverage=asked, roi=roi, **options)
        told[asked] = run(spec, lambda stage, share: None, lambda: False)["counts"]
    dense = told["dense"]
    assert told[coverage]["forwards_dense"] == dense["forwards_dense"] == dense["forwards"] == dense["locations"]
    if coverage == "planned" and roi is None:
        assert told[coverage]["forwards"] <= 0.3 * dense["forwards"]


@pytest.fixture(scope="module")
def half_a_slide(tmp_path_factory):
    """Tissue on the left, glass on the right; the border lies inside a root."""
    pixels = np.full((700, 900, 3), 243, np.uint8)
    pixels[:, :330] = np.random.default_rng(0).integers((150, 60, 120), (220, 140, 190), (700, 330, 3), np.uint8)
    path = tmp_path_factory.mktemp("slide") / "half.svs"
    return write_svs(path, [pixels, pixels[::4, ::4]]), pixels


@pytest.mark.parametrize("coverage", COVERAGES)
def test_glass_under_a_coarse_leaf_stays_unexamined(bundles, tmp_path, half_a_slide, coverage):
    slide, pixels = half_a_slide
    spec = spec_for(slide, bundles["nested"], tmp_path, coverage=coverage, detail=0.0, spacing=0.5)
    mask = mask_of(spec.model_copy(update={"reader": "openslide"}))
    assert mask.shape == pixels.shape[:2]
    assert (mask[:, :330] != 255).all()
    # Tissue is found cell by cell, with some room around it; a root's window would reach to 512.
    assert (mask[:, 330 + 2 * P :] == 255).all()


@pytest.mark.slow
def test_background_under_a_coarse_leaf_stays_unexamined(bundles, tmp_path):
    slide = DATA / "slides" / "CMU-1-Small-Region.svs"
    masks = {}
    for coverage, options in (("dense", {"policy": "fixed:1"}), ("planned", {"detail": 0.1}), ("refined", {})):
        spec = spec_for(slide, bundles["nested"], tmp_path / coverage, coverage=coverage, block=8, **options)
        masks[coverage] = mask_of(spec.model_copy(update={"reader": "openslide"})) != 255
    assert 0.3 < masks["dense"].mean() < 0.95
    assert (masks["planned"] == masks["refined"]).all()
    # The tree's squares lie a margin beside the lattice's windows.
    assert (masks["planned"] != masks["dense"]).mean() < 0.06
