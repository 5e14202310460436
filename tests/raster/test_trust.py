"""What a TIFF, or a file beside it, says of its overviews is looked at before it is believed, and never followed."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import Resampling

from foveate.errors import ImageUnreadable, ImageUnsupported
from raster.image import ImageRef, open_image
from tests.raster.test_geotiff import noise, write


class TestOverviewsThatLie:
    def test_another_picture_is_no_level(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tif", noise((3, 512, 512)), tiled=True, blockxsize=256, blockysize=256)
        write(tmp_path / "a.tif.ovr", noise((3, 256, 256)) // 4, crs=None, transform=None)
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 1
            assert any("do not show the same picture" in note for note in image.info.warnings)

    def test_an_empty_mask_level_is_no_level(self, tmp_path: Path) -> None:
        values = noise((4, 512, 512))
        path = write(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
        small = values[:, ::2, ::2].copy()
        small[3] = 0
        write(tmp_path / "a.tif.ovr", small, crs=None, transform=None, photometric="RGB", alpha="YES")
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 1

    @pytest.mark.parametrize("valid", [0.15, 0.5])
    def test_averaged_ones_of_a_ragged_mask_are(self, tmp_path: Path, valid: float) -> None:
        """An average is valid where any of its pixels is: more and more are, from level to level."""
        values = noise((4, 512, 512))
        values[3] = 255 * (np.random.default_rng(5).random((512, 512)) < valid)
        path = write(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.average)
            assert (file.read(4, out_shape=(128, 128)) > 0).mean() > valid + 0.3
        with closing(open_image(ImageRef(path))) as image:
            assert (len(image.info.levels), image.info.warnings) == (3, [])

    def test_a_true_one_is(self, tmp_path: Path) -> None:
        values = noise((3, 512, 512))
        path = write(tmp_path / "a.tif", values, tiled=True, blockxsize=256, blockysize=256)
        write(tmp_path / "a.tif.ovr", values[:, ::2, ::2].copy(), crs=None, transform=None)
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 2
            assert image.info.warnings == [
                "levels come from a.tif.ovr beside the image; the service ignores such files"
            ]

    def test_lies_within_the_file_are_no_difference_that_a_world_file_makes(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        values = np.moveaxis(noise((3, 512, 512)), 0, 2)
        with tifffile.TiffWriter(path) as file:
            file.write(values, photometric="rgb", tile=(128, 128))
            file.write(255 - values[::2, ::2], photometric="rgb", tile=(128, 128), subfiletype=1)
        path.with_suffix(".tfw").write_text("2\n0\n0\n-2\n1000\n9000\n")
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 1
            assert any(note.startswith("transform come") for note in image.info.warnings), image.info.warnings


class TestVrt:
    def vrt(self, path: Path) -> bytes:
        source = f"<SimpleSource><SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
        return f'<VRTDataset rasterXSize="20" rasterYSize="20">{band}</VRTDataset>'.encode()

    def test_is_refused_whatever_its_name(self, tmp_path: Path) -> None:
        target = write(tmp_path / "target.tif", noise((1, 40, 40)))
        for name in ("a.vrt", "a.tif", "a.jpg"):
            (tmp_path / name).write_bytes(self.vrt(target))
            with pytest.raises(ImageUnsupported, match="VRT"):
                open_image(ImageRef(tmp_path / name))

    @pytest.mark.parametrize("end", [".ovr", ".msk"])
    def test_beside_the_image_is_not_followed(self, tmp_path: Path, end: str) -> None:
        target = write(tmp_path / "target.tif", noise((1, 20, 20)))
        path = write(tmp_path / "a.tif", noise((1, 40, 40)))
        (tmp_path / f"a.tif{end}").write_bytes(self.vrt(target))
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 1
            assert image.info.validity == "none"
            assert any(f"a.tif{end}" in note for note in image.info.warnings)

    def test_named_by_the_metadata_is_not_followed(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tif", noise((1, 40, 40)))
        (tmp_path / "other.vrt").write_bytes(self.vrt(write(tmp_path / "target.tif", noise((1, 20, 20)))))
        item = '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">other.vrt</MDI></Metadata>'
        (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{item}</PAMDataset>")
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 1

    @pytest.mark.parametrize("name", ["OVERVIEW_FILE", "overview_file"])
    @pytest.mark.parametrize("sidecars", [False, True])
    def test_named_by_its_own_metadata_is_refused(self, tmp_path: Path, name: str, sidecars: bool) -> None:
        target = write(tmp_path / "target.tif", noise((1, 20, 20)))
        path = write(tmp_path / "a.tif", noise((1, 40, 40)))
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(ns="OVERVIEWS", **{name: str(target)})
        with pytest.raises(ImageUnreadable, match="name another file"):
            open_image(ImageRef(path, sidecars=sidecars))

    @pytest.mark.parametrize("end", [".ovr.ovr", ".OVR.ovr", ".ovr.aux.xml", ".msk.aux.xml"])
    def test_beside_what_is_beside_the_image_is_not_followed(self, tmp_path: Path, end: str) -> None:
        target = write(tmp_path / "target.tif", noise((1, 20, 20)))
        path = write(tmp_path / "a.tif", noise((1, 40, 40)))
        item = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{target}</MDI></Metadata>'
        (tmp_path / f"a.tif{end}").write_bytes(
            f"<PAMDataset>{item}</PAMDataset>".encode() if end.endswith("xml") else self.vrt(target)
        )
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 1
            assert any(f"a.tif{end}" in note for note in image.info.warnings)

    def test_overviews_that_name_others_are_not_followed(self, tmp_path: Path) -> None:
        target = write(tmp_path / "target.tif", noise((1, 10, 10)))
        path = write(tmp_path / "a.tif", noise((1, 40, 40)))
        beside = write(tmp_path / "a.tif.ovr", noise((1, 20, 20)))
        with rasterio.open(beside, "r+") as dataset:
            dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(target))
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 1
            assert any("a.tif.ovr" in note for note in image.info.warnings)

    @pytest.mark.parametrize("hidden", ["OVERVIEW&#95;FILE", "overview_file"])
    def test_a_name_in_disguise_is_not_followed(self, tmp_path: Path, hidden: str) -> None:
        target = write(tmp_path / "target.tif", noise((1, 20, 20)))
        path = write(tmp_path / "a.tif", noise((1, 40, 40)))
        item = f'<Metadata domain="OVERVIEWS"><MDI key="{hidden}">{target}</MDI></Metadata>'
        (tmp_path / "A.TIF.AUX.XML").write_text(f"<PAMDataset>{item}</PAMDataset>")
        with closing(open_image(ImageRef(path))) as image:
            assert len(image.info.levels) == 1
            assert any("A.TIF.AUX.XML" in note for note in image.info.warnings)
