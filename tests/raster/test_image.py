"""Choosing a reader by content, and refusing what no reader takes."""

import os
import pickle
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile

from foveate.errors import FoveateError, ImageError, ImageMissing, ImageUnreadable, ImageUnsupported
from raster.geometry import Region
from raster.geotiff import RasterioImage
from raster.image import ImageRef, Pixels, open_image
from tests.raster.contract import whole
from tests.shared import DATA

REFUSED = {"slc.tif"}
IMAGES = sorted(
    path
    for folder in ("geotiff", "geotiff/spacenet-roads", "photos", "slides")
    for path in (DATA / folder).iterdir()
    if path.name not in REFUSED
    and path.suffix not in (".vrt", ".xml", ".ovr", ".msk")
    and path.name != "spacenet-roads"
)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: str(path.relative_to(DATA)))
def test_every_sample_opens_and_is_described(path: Path) -> None:
    with closing(open_image(ImageRef(path))) as image:
        info = image.info
        assert info.name == path.name
        assert type(info).model_validate_json(info.model_dump_json()) == info
        again = open_image(ImageRef(path, reader=info.reader))
        assert again.info == info
        again.close()


@pytest.mark.parametrize("path", sorted((DATA / "broken").iterdir()), ids=lambda path: path.name)
def test_every_broken_file_is_refused_by_name_or_fails_in_its_own_tile(path: Path) -> None:
    with (
        pytest.raises(ImageError, match=path.name.partition(".")[0]) as caught,
        closing(open_image(ImageRef(path))) as image,
    ):
        whole(image)
    assert caught.value.hint


@pytest.mark.parametrize("path", [DATA / "geotiff/rgb_deflate.tif", DATA / "slides/small.svs", DATA / "photos/ihc.png"])
@pytest.mark.parametrize("name", ["a.jpg", "a.dcm", "a", "a.tif"])
def test_names_say_nothing(tmp_path: Path, path: Path, name: str) -> None:
    shutil.copyfile(path, tmp_path / name)
    with closing(open_image(ImageRef(path))) as one, closing(open_image(ImageRef(tmp_path / name))) as other:
        assert one.info.model_copy(update={"name": name}) == other.info


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", ImageUnreadable, "empty"),
        (b"this is no image\n", ImageUnsupported, "no format known"),
        (b"II*\0", ImageUnreadable, "header"),
        (b"II*\0\xff\xff\xff\xff", ImageUnreadable, "cut short"),
        (b"\xff\xd8\xff\xe0 and then nothing", ImageUnreadable, "rasterio"),
        (b"\x89PNG\r\n\x1a\n", ImageUnreadable, "cut short"),
        (b"GIF89a....", ImageError, "image"),
        (b"\0" * 128 + b"DICM" + b"\0" * 100, ImageError, "image"),
    ],
)
def test_hopeless_files_are_refused_by_name(
    tmp_path: Path, content: bytes, error: type[FoveateError], words: str
) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(content)
    with pytest.raises(error, match=r"image\.tif") as caught:
        open_image(ImageRef(path))
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["nothing.tif", "folder/nothing.tif"])
def test_missing_files_are_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageMissing, match="nothing"):
        open_image(ImageRef(tmp_path / name))


def test_a_path_that_is_not_utf8_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.tif")
    shutil.copy(DATA / "geotiff" / "cogeo.tif", path)
    with pytest.raises(ImageUnsupported, match="not UTF-8") as caught:
        open_image(ImageRef(path))
    caught.value.message.encode()
    link = tmp_path / "link.tif"
    link.symlink_to(path.name)
    open_image(ImageRef(link)).close()


@pytest.mark.parametrize(
    "name",
    [
        "https://example.org/a.tif",
        "s3://bucket/a.tif",
        "file:///etc/hostname",
        "/vsicurl/https://example.org/a.tif",
        "/vsimem/a.tif",
        f"GTIFF_DIR:1:{DATA}/geotiff/cogeo.tif",
        "zip://a.zip!a.tif",
        "a\0b.tif",
    ],
)
def test_names_that_only_gdal_understands_are_refused(name: str) -> None:
    with pytest.raises((ImageMissing, ImageUnsupported)):
        open_image(ImageRef(Path(name)))


def test_the_first_handle_proves_a_file_for_all_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    shutil.copyfile(DATA / "geotiff/rgb_deflate.tif", path)
    asked: list[Region] = []
    read = RasterioImage.read

    def noted(image: RasterioImage, level: int, region: Region) -> Pixels:
        asked.append(region)
        return read(image, level, region)

    monkeypatch.setattr(RasterioImage, "read", noted)
    for changes, expected in ((False, 1), (False, 1), (True, 2)):
        if changes:
            with path.open("ab") as file:
                file.write(b"more")
        open_image(ImageRef(path, reader="rasterio")).close()
        assert len(asked) == expected


def test_relative_paths_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    monkeypatch.chdir(tmp_path)
    with closing(open_image(ImageRef(Path("a.tif")))) as image:
        assert image.info.width == 4


def test_pinned_reader_is_the_only_one_tried() -> None:
    with pytest.raises(ImageUnreadable, match="sampling factors"):
        open_image(ImageRef(DATA / "slides/OS-2-ndpi.ome.tif", reader="rasterio"))
    with pytest.raises(ImageUnsupported, match="no reader"):
        open_image(ImageRef(DATA / "slides/OS-2-ndpi.ome.tif", reader="magic"))


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "one.tif", np.full((1, 1, 3), 7, np.uint8), photometric="rgb")
    with closing(open_image(ImageRef(tmp_path / "one.tif"))) as image:
        assert whole(image).values.tolist() == [[[7, 7, 7]]]


def pyramid(path: Path, *, mpp: float) -> None:
    full = np.random.default_rng(0).integers(0, 255, (512, 640, 3), np.uint8)
    per_cm = 10_000 / mpp
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2, 4):
            file.write(
                full[::step, ::step],
                tile=(128, 128),
                photometric="rgb",
                resolution=(per_cm / step, per_cm / step),
                resolutionunit="CENTIMETER",
                metadata=None,
                subfiletype=int(step > 1),
            )


def test_generic_pyramid_with_micrometres_is_a_slide_with_all_its_levels(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.tif", mpp=0.5)
    with closing(open_image(ImageRef(tmp_path / "a.tif"))) as image:
        info = image.info
        assert (info.kind, info.reader, len(info.levels)) == ("slide", "direct", 3)
        assert info.spacing is not None
        assert info.spacing.x == pytest.approx(0.5)
        assert info.spacing.unit == "um"


def test_pyramid_of_unknown_scale_is_a_picture(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.tif", mpp=352.8)
    with closing(open_image(ImageRef(tmp_path / "a.tif"))) as image:
        assert (image.info.kind, image.info.spacing, len(image.info.levels)) == ("picture", None, 3)


def test_refs_are_picklable() -> None:
    ref = ImageRef(Path("a.tif"), sidecars=False, reader="rasterio")
    assert pickle.loads(pickle.dumps(ref)) == ref


def test_nothing_is_printed_about_bad_files() -> None:
    code = (
        "import sys; from pathlib import Path; from raster.image import *; from foveate.errors import *\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_image(ImageRef(Path(path))).close()\n"
        "    except FoveateError: pass\n"
    )
    files = [str(path) for path in sorted((DATA / "broken").iterdir())]
    done = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout + done.stderr == ""


def test_codecs_that_gdal_lacks_are_decoded_by_tifffile(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", compression="jpegxl", tile=(16, 16))
    with closing(open_image(ImageRef(tmp_path / "a.tif"))) as image:
        assert image.info.reader == "tifffile"
        np.testing.assert_array_equal(whole(image).values, values)


def test_damaged_slide_of_a_vendor_is_tried_by_no_other_reader() -> None:
    with pytest.raises(ImageUnreadable, match="Bogus marker length") as caught:
        open_image(ImageRef(DATA / "broken/unreadable.svs"))
    assert "rasterio" not in caught.value.message


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.999])
def test_a_slide_that_was_cut_short_is_refused_and_never_taken_for_another_kind(tmp_path: Path, share: float) -> None:
    whole_slide = (DATA / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(whole_slide[: int(len(whole_slide) * share)])
    with pytest.raises(ImageUnreadable, match=r"cut\.svs is cut short"):
        open_image(ImageRef(path))
