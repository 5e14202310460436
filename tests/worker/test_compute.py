"""From pixels to labels: constants, places, borders, blocks, regions of interest, no data, damage, resumption."""

import json
import shutil

import numpy as np
import pytest
import tifffile

import raster.convert
from foveate.errors import CanvasMismatch, ImageDamaged
from foveate.schema import SegmentOptions
from tests.bundles import BRIGHT, DARK, make_bundle
from tests.worker.computed import broken_tiles, mask_of, spec_for, write_image
from worker.canvas import CLOSED, Canvas
from worker.spec import canvas_digest

P = 64


def noise(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), np.uint8)
    return np.kron(coarse, np.ones((9, 9, 1), np.uint8))[:height, :width]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    return {
        "explicit": make_bundle(root / "e", name="e", kind="any", spacing=None, mapping="explicit", policy="mode"),
        "implicit": make_bundle(root / "i", name="i", kind="any", spacing=None, mapping="implicit", policy="mean"),
        "constant": make_bundle(root / "c", name="c", kind="any", spacing=None, constant=BRIGHT),
        "odd": make_bundle(
            root / "o", name="o", kind="any", spacing=None, mapping="explicit", policy="mode", fovs=[64, 87, 131]
        ),
        "plain": make_bundle(
            root / "p", name="p", kind="any", spacing=None, foveation=None, fovs=[64], mapping="explicit",
            policy="fixed:1",
        ),
        "micrometre": make_bundle(
            root / "m", name="m", kind="any", spacing=1.0, spacing_range=(0.1, 10), foveation=None, fovs=[64],
            mapping="explicit", policy="fixed:1",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (P - 1, P), (P + 1, 2 * P - 1), (101, 193)])
def test_a_constant_network_gives_its_constant_everywhere(bundles, tmp_path, size, overlap):
    image = write_image(tmp_path / "i.tif", noise(*size))
    mask = mask_of(spec_for(image, bundles["constant"], tmp_path, overlap=overlap, block=3))
    assert mask.shape == size
    assert (mask == BRIGHT).all()


@pytest.mark.parametrize("spacing", [2.7, 0.94])
def test_a_constant_stays_at_other_spacings_and_smaller_masks(bundles, tmp_path, spacing):
    image = write_image(tmp_path / "i.tif", np.full((97, 211, 3), 220, np.uint8))
    mask = mask_of(spec_for(image, bundles["micrometre"], tmp_path, spacing=spacing, mask_downsample=4, block=3))
    assert mask.shape == (25, 53)
    assert (mask == BRIGHT).all()


@pytest.mark.parametrize("bundle", ["explicit", "implicit", "odd", "plain"])
def test_blocks_and_batches_do_not_change_the_mask(bundles, tmp_path, bundle):
    image = write_image(tmp_path / "i.tif", noise(530, 611))
    masks = [
        mask_of(spec_for(image, bundles[bundle], tmp_path / f"{block}-{batch}", block=block, batch=batch))
        for block, batch in ((3, 1), (16, 16), (5, 4))
    ]
    assert {DARK, BRIGHT} == set(np.unique(masks[0]))
    for other in masks[1:]:
        assert (masks[0] != other).mean() <= 1e-4


@pytest.mark.parametrize("overlap", [0.5, 0.75])
def test_blocks_do_not_change_the_mask_at_wide_overlaps(bundles, tmp_path, overlap):
    image = write_image(tmp_path / "i.tif", noise(300, 411))
    one, other = (
        mask_of(spec_for(image, bundles["explicit"], tmp_path / f"{block}", block=block, overlap=overlap))
        for block in (1, 16)
    )
    assert (one != other).mean() <= 1e-4


@pytest.mark.parametrize("options", [{}, {"mask_downsample": 4}, {"spacing": 0.37}, {"spacing": 2.7}])
def test_the_mask_of_a_region_is_the_crop_of_the_whole(bundles, tmp_path, options):
    image = write_image(tmp_path / "i.tif", noise(400, 500))
    bundle = bundles["micrometre" if "spacing" in options else "explicit"]
    whole = mask_of(spec_for(image, bundle, tmp_path / "whole", block=4, **options))
    m = options.get("mask_downsample", 1)
    part = mask_of(spec_for(image, bundle, tmp_path / "part", block=3, roi=(136.2, 75.5, 171.1, 210.9), **options))
    x0, y0, x1, y1 = 136, 75, 308, 287
    if m == 1:
        assert (part == whole[y0:y1, x0:x1]).all()
    else:
        exact = mask_of(spec_for(image, bundle, tmp_path / "exact", roi=(136, 76, 172, 212), **options))
        assert part.shape == (-(-(y1 - y0) // m), -(-(x1 - x0) // m))
        assert (exact == whole[76 // m : 288 // m, 136 // m : 308 // m]).all()


@pytest.mark.parametrize("ratio", [0.37, 1.0, 1.06, 2.7])
@pytest.mark.parametrize("corner", ["near", "far"])
def test_bright_squares_come_back_in_their_places(bundles, tmp_path, ratio, corner):
    """On average over all phases their centres stay within 0.05 working pixels, in the far corner too.

    One square's outline may be off by half a working pixel, since a mask holds classes; a shift would stay in the mean.
    """
    height, width, side, step = 1033, 1121, 23, 61
    pixels = np.zeros((height, width, 3), np.uint8)
    half_y, half_x = (0, 0) if corner == "near" else (height // 2, width // 2)
    corners = [(half_y + 20 + step * i, half_x + 20 + step * j) for i in range(7) for j in range(7)]
    for y, x in corners:
        pixels[y : y + side, x : x + side] = 255
    image = write_image(tmp_path / "i.tif", pixels)
    mask = mask_of(spec_for(image, bundles["micrometre"], tmp_path, spacing=1 / ratio, block=5))
    around = [mask[y - 15 : y + side + 15, x - 15 : x + side + 15] for y, x in corners]
    shifts = [np.argwhere(square == BRIGHT).mean(axis=0) - (15 + (side - 1) / 2) for square in around]
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.05 * ratio
    assert np.abs(shifts).max() < 0.5 * ratio


@pytest.mark.parametrize("nodata", [None, 0])
def test_levels_that_a_file_lacks_change_the_mask_neither_way(bundles, tmp_path, monkeypatch, nodata):
    """Whether all of the file is copied, as before, or the missing levels only, beside it."""
    pixels = noise(768, 1024)
    pixels[:100, :200] = 0
    image = write_image(tmp_path / "i.tif", pixels, nodata=nodata)
    monkeypatch.setattr(raster.convert, "_FLAT_PIXELS", 10_000)
    half = spec_for(image, bundles["explicit"], tmp_path / "half", block=3)
    masks = [mask_of(half)]
    monkeypatch.setattr(raster.convert, "_ill_stored", lambda info: "it is said to be ill stored")
    whole = spec_for(image, bundles["explicit"], tmp_path / "whole", block=3)
    masks.append(mask_of(whole))
    sizes = []
    for spec in (half, whole):
        with tifffile.TiffFile(spec.canvas / "converted.tif") as file:
            sizes.append(file.pages.first.shape[:2])
    assert sizes == [(384, 512), (768, 1024)]
    assert (masks[0] == masks[1]).all()
    assert {DARK, BRIGHT} <= set(np.unique(masks[0]))


def test_no_data_is_255_and_a_lone_valid_pixel_is_examined(bundles, tmp_path):
    pixels = np.zeros((700, 900, 3), np.uint8)
    pixels[333, 777] = 255
    pixels[:50, :60] = 200
    image = write_image(tmp_path / "i.tif", pixels, nodata=0)
    mask = mask_of(spec_for(image, bundles["constant"], tmp_path, block=3))
    valid = pixels.any(axis=2)
    assert (mask[valid] == BRIGHT).all()
    assert (mask[~valid] == 255).all()


def test_without_declared_no_data_black_is_data(bundles, tmp_path):
    image = write_image(tmp_path / "i.tif", np.zeros((70, 90, 3), np.uint8))
    assert (mask_of(spec_for(image, bundles["explicit"], tmp_path)) == DARK).all()


@pytest.mark.parametrize("stop_after", [0, 7, 23, 40])
def test_a_job_that_was_cut_off_goes_on_to_the_same_mask(bundles, tmp_path, stop_after):
    image = write_image(tmp_path / "i.tif", noise(500, 480))
    whole = mask_of(spec_for(image, bundles["explicit"], tmp_path / "whole", block=3, batch=2))
    cut = spec_for(image, bundles["explicit"], tmp_path / "cut", block=3, batch=2)
    with pytest.raises(KeyboardInterrupt):
        mask_of(cut, stop_after=stop_after)
    kept = {path: path.stat().st_mtime_ns for path in cut.canvas.glob("blocks/*.labels.zip")}
    assert (mask_of(cut) == whole).all()
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


def test_a_damaged_committed_file_is_computed_again(bundles, tmp_path):
    image = write_image(tmp_path / "i.tif", noise(300, 280))
    spec = spec_for(image, bundles["explicit"], tmp_path, block=3)
    whole = mask_of(spec)
    for path in (*spec.canvas.glob("blocks/*.labels.zip"), *spec.canvas.glob("seams/*.zip")):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    assert (mask_of(spec) == whole).all()


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "hurt", [_flip, lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.unlink()]
)
def test_a_block_that_lost_its_share_of_an_open_seam_is_computed_again(bundles, tmp_path, hurt):
    image = write_image(tmp_path / "i.tif", noise(500, 480))
    whole = mask_of(spec_for(image, bundles["explicit"], tmp_path / "whole", block=3, batch=2))
    cut = spec_for(image, bundles["explicit"], tmp_path / "cut", block=3, batch=2)
    with pytest.raises(KeyboardInterrupt):
        mask_of(cut, stop_after=40)
    kept = {path: path.stat().st_mtime_ns for path in cut.canvas.glob("blocks/*.labels.zip")}
    shares = sorted(cut.canvas.glob("sums/*.npy"))
    hurt(shares[len(shares) // 2])
    assert (mask_of(cut) == whole).all()
    assert sum(path.stat().st_mtime_ns != when for path, when in kept.items()) == 1


def test_a_seam_that_is_damaged_after_its_sums_were_dropped_is_computed_again(bundles, tmp_path):
    image = write_image(tmp_path / "i.tif", noise(300, 280))
    spec = spec_for(image, bundles["explicit"], tmp_path, block=3)
    whole = mask_of(spec)
    assert not any(spec.canvas.glob("sums/*"))
    for path in spec.canvas.glob("seams/*.zip"):
        _flip(path)
    assert (mask_of(spec) == whole).all()


def test_a_job_killed_between_a_seam_and_the_block_that_closed_it_goes_on_to_the_same_mask(
    bundles, tmp_path, monkeypatch
):
    image = write_image(tmp_path / "i.tif", noise(500, 480))
    whole = mask_of(spec_for(image, bundles["explicit"], tmp_path / "whole", block=3, batch=2))
    cut = spec_for(image, bundles["explicit"], tmp_path / "cut", block=3, batch=2)
    commit_block = Canvas.commit_block

    def killed(canvas, block, record):
        if CLOSED in record.sums.values():
            raise KeyboardInterrupt
        commit_block(canvas, block, record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Canvas, "commit_block", killed)
        mask_of(cut)
    assert any(cut.canvas.glob("seams/*.zip"))
    assert (mask_of(cut) == whole).all()


def test_sums_are_written_only_for_seams_that_stay_open(bundles, tmp_path, monkeypatch):
    image = write_image(tmp_path / "i.tif", noise(500, 480))
    spec = spec_for(image, bundles["explicit"], tmp_path, block=3, batch=2)
    written, seams = [], []
    commit_sums, commit_seam = Canvas.commit_sums, Canvas.commit_seam

    def noted(canvas, block, name, sums):
        written.append(name)
        return commit_sums(canvas, block, name, sums)

    def noted_seam(canvas, piece, layers, tally):
        seams.append(piece)
        commit_seam(canvas, piece, layers, tally)

    monkeypatch.setattr(Canvas, "commit_sums", noted)
    monkeypatch.setattr(Canvas, "commit_seam", noted_seam)
    mask_of(spec)
    assert seams
    assert sorted(written) == sorted(f"{piece.name}.1" for piece in seams for _ in piece.owners[1:])


def test_a_seam_that_another_attempt_closed_meanwhile_is_taken_as_it_is(bundles, tmp_path, monkeypatch):
    image = write_image(tmp_path / "i.tif", noise(500, 480))
    other = spec_for(image, bundles["explicit"], tmp_path / "whole", block=3, batch=2)
    whole = mask_of(other)
    cut = spec_for(image, bundles["explicit"], tmp_path / "cut", block=3, batch=2)
    with pytest.raises(KeyboardInterrupt):
        mask_of(cut, stop_after=40)
    sums = Canvas.sums

    def after_the_other(canvas, block, seam):
        if canvas.directory == cut.canvas:
            shutil.copytree(other.canvas / "seams", cut.canvas / "seams", dirs_exist_ok=True)
            for path in cut.canvas.glob("sums/*"):
                path.unlink()
        return sums(canvas, block, seam)

    with monkeypatch.context() as patch:
        patch.setattr(Canvas, "holds_sums", lambda *of: True)
        patch.setattr(Canvas, "sums", after_the_other)
        assert (mask_of(cut) == whole).all()


def test_a_canvas_of_another_configuration_is_refused_with_the_difference(bundles, tmp_path):
    image = write_image(tmp_path / "i.tif", noise(100, 100))
    mask_of(spec_for(image, bundles["explicit"], tmp_path))
    with pytest.raises(CanvasMismatch, match=r"overlap: 0\.25 there, 0\.5 asked"):
        mask_of(spec_for(image, bundles["explicit"], tmp_path, overlap=0.5))


def test_a_canvas_of_another_batch_is_refused(bundles, tmp_path):
    image = write_image(tmp_path / "i.tif", noise(100, 100))
    mask_of(spec_for(image, bundles["explicit"], tmp_path, batch=2))
    with pytest.raises(CanvasMismatch, match="batch: 2 there, 3 asked"):
        mask_of(spec_for(image, bundles["explicit"], tmp_path, batch=3))


@pytest.mark.parametrize("key", ["foveate", "format"])
def test_a_canvas_of_another_foveate_is_refused_with_what_helps(bundles, tmp_path, key):
    spec = spec_for(write_image(tmp_path / "i.tif", noise(100, 100)), bundles["explicit"], tmp_path)
    mask_of(spec)
    configuration = spec.canvas / "configuration.json"
    configuration.write_text(json.dumps(json.loads(configuration.read_text()) | {key: "old"}))
    with pytest.raises(CanvasMismatch, match=rf"{key}: old there, (?!None)") as refused:
        mask_of(spec)
    assert "same again" not in refused.value.hint
    assert "delete" in refused.value.hint


def test_a_service_never_offers_a_canvas_of_another_format(monkeypatch):
    def digest() -> str:
        options = SegmentOptions(model="m")
        return canvas_digest(
            image_sha256="i", reader="r", bundle_sha256="b", options=options, machine=("cpu", 2.0, None, None)
        )

    before = digest()
    assert digest() == before
    monkeypatch.setattr("worker.spec.CANVAS_FORMAT", 0)
    assert digest() != before


@pytest.mark.parametrize("beside", ["i.tif.msk", "i.tfw"])
def test_a_canvas_of_other_files_beside_the_image_is_refused(bundles, tmp_path, beside):
    image = write_image(tmp_path / "i.tif", noise(100, 100))
    mask_of(spec_for(image, bundles["explicit"], tmp_path))
    if beside == "i.tfw":
        (tmp_path / beside).write_text("3\n0\n0\n-3\n1000\n9000\n")
    else:
        masked = write_image(tmp_path / "mask.tif", np.zeros((100, 100), np.uint8))
        masked.rename(tmp_path / beside)
    with pytest.raises(CanvasMismatch, match="beside"):
        mask_of(spec_for(image, bundles["explicit"], tmp_path))


def test_a_damaged_tile_is_255_in_the_mask(bundles, tmp_path):
    image = broken_tiles(tmp_path / "i.tif", noise(1024, 1024), [17])
    mask = mask_of(spec_for(image, bundles["constant"], tmp_path, block=3))
    wanted = np.full((1024, 1024), BRIGHT, np.uint8)
    wanted[64:128, 64:128] = 255
    assert (mask == wanted).all()


@pytest.mark.parametrize("kind", ["nodata", "alpha", "float"])
def test_a_damaged_tile_is_255_where_not_all_is_data_too(bundles, tmp_path, kind):
    pixels = noise(1024, 1024).clip(1)
    pixels[:10] = 0
    options = {}
    if kind == "nodata":
        image = broken_tiles(tmp_path / "i.tif", pixels, [17], nodata=0)
    elif kind == "alpha":
        opaque = np.where(pixels.any(axis=2), 255, 0).astype(np.uint8)
        image = broken_tiles(tmp_path / "i.tif", np.dstack([pixels, opaque]), [17], photometric="RGB", alpha="YES")
        options["bands"] = [1, 2, 3]
    else:
        values = np.where(pixels == 0, np.float32(-np.inf), pixels.astype(np.float32))
        image = broken_tiles(tmp_path / "i.tif", values, [17])
        options["rescale"] = (0, 255)
    mask = mask_of(spec_for(image, bundles["constant"], tmp_path, block=3, **options))
    wanted = np.full((1024, 1024), BRIGHT, np.uint8)
    wanted[:10] = wanted[64:128, 64:128] = 255
    assert (mask == wanted).all()


def test_too_much_damage_fails_and_says_where(bundles, tmp_path):
    image = broken_tiles(tmp_path / "i.tif", noise(512, 512), [9, 20])
    spec = spec_for(image, bundles["constant"], tmp_path).model_copy(update={"image_name": "upload.tif"})
    with pytest.raises(ImageDamaged, match="of 64 tiles") as refused:
        mask_of(spec)
    assert "upload.tif" in refused.value.message
    assert "i.tif" not in refused.value.message
