"""Where a raster's pixels lie: on the Earth, by ground control points, or only in micrometres."""

from dataclasses import dataclass
from typing import Self

from foveate.schema import ImageInfo, SpacingInfo

Transform = tuple[float, float, float, float, float, float]
GroundPoint = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class Georeference:
    """What a file says about the place of its pixels, carried without a change from the image to the files we write.

    `transform` (a, b, c, d, e, f): the pixel corner (x, y) lies at (a x + b y + c, d x + e y + f), whatever
    `area_or_point` says. `gcps`: (column, row, x, y, z); a file holds either these or a transform, and these win.
    `spacing_um`: sides of a pixel along x and y, of slides only.
    """

    crs: str | None = None
    transform: Transform | None = None
    gcps: tuple[GroundPoint, ...] = ()
    area_or_point: str | None = None
    spacing_um: tuple[float, float] | None = None

    @classmethod
    def of(cls, info: ImageInfo, spacing: SpacingInfo | None) -> Self:
        """The image's own; `spacing` is the one in force, which an option may have set."""
        slide = spacing is not None and spacing.unit == "um"
        return cls(
            crs=info.crs,
            transform=None if info.gcps else info.transform,
            gcps=tuple(info.gcps),
            area_or_point=info.area_or_point,
            spacing_um=(spacing.x, spacing.y) if slide and spacing is not None else None,
        )

    def regridded(self, x: float, y: float, width: float, height: float) -> Self:
        """The georeference of a grid whose first pixel is the rectangle (x, y, width, height) of this raster's pixels.

        Powers of two for the sides and zero for the origin give exact numbers.
        """
        transform = self.transform
        if transform is not None:
            a, b, c, d, e, f = transform
            transform = (a * width, b * height, a * x + b * y + c, d * width, e * height, d * x + e * y + f)
        spacing = self.spacing_um
        return type(self)(
            crs=self.crs,
            transform=transform,
            gcps=tuple(((col - x) / width, (row - y) / height, *place) for col, row, *place in self.gcps),  # type: ignore[misc]
            area_or_point=self.area_or_point,
            spacing_um=None if spacing is None else (spacing[0] * width, spacing[1] * height),
        )
