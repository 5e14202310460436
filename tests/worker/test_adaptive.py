"""Adaptive coverage from pixels to labels: budgets, places, blocks, regions of interest, resumption."""

import numpy as np
import pytest
import rasterio
import torch

from foveate.errors import OptionInvalid
from model.bundle import load_bundle
from model.detail import planned_needs
from model.device import choose_device
from model.evaluation.nodes import Cover, forward_nodes
from model.evaluation.predict import thumbnail_of
from model.lanes import Lanes
from model.predictor import Predictor
from model.tree import make_tree, plan_leaves
from raster.geometry import Size
from tests.bundles import BRIGHT, make_bundle
from tests.model.evaluation.scenes import opened, write_pair
from tests.worker.adaptive import COVERAGES, P, make_tree_bundle, patchwork
from tests.worker.computed import layers_made, mask_of, spec_for, write_image
from worker.job import COMMITTED_AT_ONCE, prepared
from worker.pipeline import run


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    return {
        "nested": make_tree_bundle(root / "n"),
        "constant": make_tree_bundle(root / "c", constant=BRIGHT),
        "threes": make_tree_bundle(root / "t", fovs=[64, 192]),
        "bare": make_tree_bundle(root / "b", coverage={}),
        "odd": make_tree_bundle(root / "o", fovs=[64, 87, 131]),
        "implicit": make_bundle(root / "i", name="i", kind="any", spacing=None, mapping="implicit", policy="mean"),
        "micrometre": make_tree_bundle(root / "m", spacing=1.0, spacing_range=(0.1, 10)),
    }


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("size", [(1, 1), (P + 1, 3 * P - 1), (301, 493)])
def test_a_constant_network_gives_its_constant_everywhere(bundles, tmp_path, coverage, size):
    image = write_image(tmp_path / "i.tif", patchwork(*size) if min(size) > 40 else np.zeros((*size, 3), np.uint8))
    mask = mask_of(spec_for(image, bundles["constant"], tmp_path, coverage=coverage, detail=0.5))
    assert mask.shape == size
    assert (mask == BRIGHT).all()


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("bundle", ["nested", "threes"])
def test_blocks_and_batches_do_not_change_the_mask(bundles, tmp_path, coverage, bundle):
    image = write_image(tmp_path / "i.tif", patchwork(530, 611))
    masks = [
        mask_of(spec_for(image, bundles[bundle], tmp_path / f"{block}", block=block, batch=batch, coverage=coverage))
        for block, batch in ((1, 1), (4, 16))
    ]
    assert len(np.unique(masks[0])) == 2
    assert (masks[0] != masks[1]).mean() <= 1e-4


def test_the_order_in_which_blocks_end_does_not_change_the_mask(bundles, tmp_path, monkeypatch):
    image = write_image(tmp_path / "i.tif", patchwork(530, 611))
    common = {"coverage": "refined", "detail": 0.5, "block": 1}
    usual = mask_of(spec_for(image, bundles["nested"], tmp_path / "usual", **common))
    stops = [None, 3, None]
    orders = []

    def backwards(lanes, work, tasks, most):
        found, stop = [(task, work(task)) for task in tasks], stops.pop(0)
        orders.append([(block.row, block.column) for (block, _), _ in reversed(found)])
        for done, pair in enumerate(reversed(found)):
            if done == stop:
                raise KeyboardInterrupt
            yield pair

    monkeypatch.setattr(Lanes, "as_completed", backwards)
    assert (mask_of(spec_for(image, bundles["nested"], tmp_path / "backwards", **common)) == usual).all()
    spec = spec_for(image, bundles["nested"], tmp_path / "killed", **common)
    with pytest.raises(KeyboardInterrupt):
        mask_of(spec)
    assert (mask_of(spec) == usual).all()
    assert len(orders[0]) > 4 and orders[0] == sorted(orders[0], reverse=True)
    assert len(orders[2]) < len(orders[0]), "what was committed was not computed again"


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_the_whole_budget_is_what_dense_coverage_sees(bundles, tmp_path, overlap):
    # The network looks at single pixels, so that windows do not matter and only resolution does.
    image = write_image(tmp_path / "i.tif", patchwork(400, 500))
    dense = mask_of(spec_for(image, bundles["nested"], tmp_path / "d", policy="fixed:1", overlap=overlap))
    planned = mask_of(
        spec_for(image, bundles["nested"], tmp_path / "p", coverage="planned", detail=1.0, overlap=overlap)
    )
    assert (dense == planned).all()


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize(
    ("bundle", "options"),
    [
        ("nested", {}),
        ("nested", {"mask_downsample": 4}),
        ("micrometre", {"spacing": 1.7}),
        ("micrometre", {"spacing": 3.0}),
    ],
)
@pytest.mark.parametrize("nodata", [None, 0])
def test_the_mask_of_a_region_is_the_crop_of_the_whole(bundles, tmp_path, coverage, bundle, options, nodata):
    image = write_image(tmp_path / "i.tif", patchwork(600, 700).clip(1), nodata=nodata)
    m = options.get("mask_downsample", 1)
    common = {"coverage": coverage, "detail": 0.5, **options}
    whole = mask_of(spec_for(image, bundles[bundle], tmp_path / "w", **common))
    part = mask_of(spec_for(image, bundles[bundle], tmp_path / "p", roi=(40 * m, 52 * m, 96 * m, 80 * m), **common))
    crop = whole[52 : 52 + part.shape[0], 40 : 40 + part.shape[1]]
    assert (part == crop).all()


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("roi", [(211, 87, 1, 1), (300, 200, 1, 40)])
def test_a_region_of_a_pixel_between_working_pixels_is_one(bundles, tmp_path, coverage, roi):
    image = write_image(tmp_path / "i.tif", patchwork(400, 500))
    common = {"coverage": coverage, "detail": 0.5, "spacing": 3.0}
    whole = mask_of(spec_for(image, bundles["micrometre"], tmp_path / "w", **common))
    part = mask_of(spec_for(image, bundles["micrometre"], tmp_path / "p", roi=roi, **common))
    x, y, width, height = roi
    assert (part == whole[y : y + height, x : x + width]).all()


@pytest.mark.parametrize("coverage", COVERAGES)
def test_open_sums_of_all_scales_fit_into_the_memory_that_is_theirs(bundles, tmp_path, coverage):
    image = write_image(tmp_path / "i.tif", patchwork(1200, 1200))
    spec = spec_for(image, bundles["nested"], tmp_path, coverage=coverage, memory_gb=2.0)
    predictor = Predictor(load_bundle(spec.model), choose_device("cpu"))
    with prepared(spec, predictor, lambda stage, share: None) as job:
        block = job.placement.blocks.at(1, 1)
        areas = [np.prod(job.placement.support(block, scale).size.shape) for scale in job.scales]
        held = (job.budget.at_once + COMMITTED_AT_ONCE) * 4 * (len(job.card.classes) + 1) * sum(areas)
        rest = job.budget.cache_bytes + job.budget.ahead_bytes
    assert job.budget.at_once > 1
    assert held + rest <= 0.9e9, "of 2 GB 1.1 are the process's own"


@pytest.mark.parametrize("coverage", COVERAGES)
def test_a_job_keeps_its_budget_and_tells_it(bundles, tmp_path, coverage):
    image = write_image(tmp_path / "i.tif", patchwork(900, 900))
    spec = spec_for(image, bundles["nested"], tmp_path, coverage=coverage, detail=0.5)
    stages = []
    manifest = run(spec, lambda stage, share: stages.append(stage), lambda: False)
    counts = manifest["counts"]
    assert counts["forwards"] == sum(counts["patches_by_fov"])
    told = [stage for stage in stages if stage.startswith("segmenting")]
    assert (f"segmenting, {counts['forwards']} forwards planned" in told[0]) == (coverage == "planned")
    assert counts["forwards_dense"] == 19 * 19
    assert counts["forwards_share"] == pytest.approx(counts["forwards"] / 361)
    assert 5 * 5 < counts["forwards"] < (0.5 * 361 if coverage == "planned" else 1.4 * 361)
    assert manifest["parameters"]["coverage"] == coverage
    assert isinstance(manifest["parameters"]["threshold"], float)
    with rasterio.open(spec.out / "foveation.tif") as file:
        mean, chosen = file.read()
    assert chosen.shape == (19, 19)
    # A plan looks closely where much changes, refinement where the network wavers; never at flat grey in the middle.
    busy = slice(0, 4) if coverage == "planned" else slice(-4, None)
    assert chosen[:, busy].mean() < chosen[:, 8:11].mean() == 3
    assert set(np.unique(mean)) <= {0.0, np.float32(1 / 3), 1.0}
    assert (mean == (2 ** (chosen - 1) - 1) / 3).all()


def test_a_preview_can_be_read_before_the_first_block_is_refined(bundles, tmp_path):
    image = write_image(tmp_path / "i.tif", patchwork(500, 700))
    spec = spec_for(image, bundles["nested"], tmp_path, coverage="refined", detail=0.5, block=1)
    previews = []

    def watch(stage, share):
        if stage.startswith("refining"):
            with rasterio.open(spec.preview) as file:
                previews.append((file.read(1), file.transform, file.bounds))
            assert not list((spec.canvas / "blocks").iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, watch, lambda: False)
    (labels, transform, bounds) = previews[0]
    assert labels.shape == (125, 175)
    assert transform.almost_equals(rasterio.Affine(8, 0, 1000, 0, -8, 9000))
    with rasterio.open(image) as file:
        assert bounds == file.bounds
        expected = file.read(1).reshape(125, 4, 175, 4).mean((1, 3)) > 127.5
    assert (labels == expected).mean() > 0.98


@pytest.fixture
def slanted(monkeypatch):
    """Scores that depend on the place in the patch: what a pixel gets then tells which patches had a say."""
    plain = Predictor.scores

    def scores(predictor, batch):
        found = plain(predictor, batch)
        ramp = torch.linspace(0, 1, found.shape[-1])
        return (found + torch.stack([ramp, 1 - ramp])[None, :, None, :]) / 2

    monkeypatch.setattr(Predictor, "scores", scores)


@pytest.mark.parametrize("detail", [0.0, 0.5])
@pytest.mark.parametrize("coverage", COVERAGES)
def test_every_patch_has_its_say_whatever_the_blocks_and_the_region(bundles, tmp_path, slanted, coverage, detail):
    image = write_image(tmp_path / "i.tif", np.kron(patchwork(40, 48), np.ones((13, 13, 1), np.uint8)))
    options = {"coverage": coverage, "detail": detail}
    whole = mask_of(spec_for(image, bundles["nested"], tmp_path / "whole", block=8, **options))
    for block in (1, 2):
        parts = spec_for(image, bundles["nested"], tmp_path / str(block), block=block, batch=block, **options)
        assert (mask_of(parts) == whole).all()
    region = spec_for(image, bundles["nested"], tmp_path / "roi", block=3, roi=(340, 340, 60, 60), **options)
    assert (mask_of(region) == whole[340:400, 340:400]).all()


@pytest.mark.parametrize("coverage", COVERAGES)
def test_a_killed_job_ends_with_the_same_mask(bundles, tmp_path, coverage):
    image = write_image(tmp_path / "i.tif", patchwork(900, 900))
    common = {"coverage": coverage, "detail": 0.5, "block": 1}
    whole = mask_of(spec_for(image, bundles["nested"], tmp_path / "w", **common))
    spec = spec_for(image, bundles["nested"], tmp_path / "k", **common)
    for stop in (2, 9, 15):
        with pytest.raises(KeyboardInterrupt):
            mask_of(spec, stop_after=stop)
    assert (mask_of(spec) == whole).all()
    assert not list((spec.canvas / "sums").iterdir()), (
        "sums of every scale are dropped with the last seam that needs them"
    )


@pytest.mark.parametrize("overlap", [0.0, 0.25])
@pytest.mark.parametrize("coverage", COVERAGES)
def test_regions_that_end_where_coarse_pixels_begin_are_the_crop_of_the_whole(
    bundles, tmp_path, slanted, coverage, overlap
):
    """Their last pixels lie between one of their own roots and one that nothing else of them needs."""
    image = write_image(tmp_path / "i.tif", patchwork(500, 560))
    options = {"coverage": coverage, "detail": 0.0, "overlap": overlap, "outputs": ["probabilities"]}
    whole = layers_made(spec_for(image, bundles["nested"], tmp_path / "whole", block=8, **options))["probabilities"]
    edge = make_tree(Size(560, 500), P, (P, 2 * P, 4 * P), overlap).roots.start(1)
    for first in (edge - 42, edge - 41, edge - 1, edge, edge + 1):
        roi = (first, first, 40, 40)
        part = layers_made(spec_for(image, bundles["nested"], tmp_path / str(first), block=1, roi=roi, **options))
        crop = whole[:, first : first + 40, first : first + 40]
        assert np.abs(part["probabilities"].astype(float) - crop).max() < 2e-3, first


@pytest.mark.parametrize(
    ("bundle", "options", "words"),
    [
        ("implicit", {"coverage": "planned"}, "explicit mapping"),
        ("odd", {"coverage": "refined"}, "whole ratios"),
        ("bare", {"coverage": "refined"}, "needs the curve"),
        ("nested", {"coverage": "planned", "policy": "fixed:1"}, "policy 'fixed:1'"),
        ("nested", {"detail": 0.4}, "coverage is dense"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(bundles, tmp_path, bundle, options, words):
    image = write_image(tmp_path / "i.tif", np.zeros((70, 70, 3), np.uint8))
    with pytest.raises(OptionInvalid, match=words):
        mask_of(spec_for(image, bundles[bundle], tmp_path, **options))


@pytest.mark.parametrize("coverage", COVERAGES)
def test_the_mask_that_is_scored_is_the_one_that_is_written(bundles, tmp_path, coverage):
    pixels = patchwork(400, 500)
    write_pair(tmp_path, "a", pixels, np.zeros(pixels.shape[:2], np.uint8))
    spec = spec_for(tmp_path / "images" / "a.png", bundles["nested"], tmp_path, coverage=coverage, detail=0.5)
    spec = spec.model_copy(update={"reader": None, "sidecars": False})
    mask = mask_of(spec)
    predictor = Predictor(load_bundle(bundles["nested"]), choose_device("cpu"))
    image = opened(tmp_path, predictor)
    nodes = forward_nodes(predictor, image, 0.25, tmp_path / "nodes", lambda share: None)
    cover, tree = Cover(nodes), nodes.tree
    if coverage == "planned":
        needs = planned_needs(tree, thumbnail_of(image, 32), None, 32, None)
        strips = cover.leaves(
            plan_leaves(tree, needs, np.ones(tree.grid(0), bool), 0.5, tree.dense.rows * tree.dense.columns)[0]
        )
    else:
        strips = cover.refined(nodes.wants(), 0.35)
    scored = np.concatenate([strip.scores.argmax(axis=0) for strip in strips])
    # Nodes are kept in half precision.
    assert (scored != mask).mean() < 2e-3
