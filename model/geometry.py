"""Where the fields of view lie in the paper's geometry, `center`, and in that of the authors' code, `parity`.

Integers only; a location is (row, column) in the grid of cells, windows are regions of the image. Both serve the
paper's experiments and whole images in memory; large images use the lattice instead (design, section 2). Letters, per
axis: N the image's extent, n locations, i a location, P the extent of a field of view, Q that of the smallest.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

from foveate.errors import OptionInvalid
from model.resample import low_resolution_shape
from raster.geometry import Region, Size

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """The grid of locations and, at each, one window for every field of view of the bank."""

    bank: tuple[int, ...]
    """Rows of every field of view, ascending; columns are `aspect` times as many."""
    step: int
    """Image rows from one location to the next; columns `step * aspect`."""
    kind: Literal["center", "parity"] = "center"
    aspect: int = 1
    outside: Literal["zeros", "mirror", "none"] = "zeros"
    """What lies outside the image: 0 after normalisation, its reflection, or nothing: windows are clamped ("none")."""
    adjust: bool = False
    """Windows are moved into the image (the code's `adjust_crop_range`)."""
    coarse: bool = False
    """The grid is the coarser one of inference: in `center` it then never steps further than `step`."""

    def __post_init__(self) -> None:
        if self.kind == "center" and (self.adjust or self.outside == "none"):
            raise OptionInvalid(
                "adjusted or clamped windows exist in the geometry 'parity' only", hint="use zeros or mirror outside"
            )
        if self.adjust and self.outside == "none":
            raise OptionInvalid("adjusted windows need padding", hint="use zeros or mirror outside")

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Rows and columns of every resampled patch: the smallest field of view's."""
        return self.bank[0], self.bank[0] * self.aspect

    def enlarged(self, rate: float) -> Self:
        """The bank of the code's evaluation with `expand_prediction_rate_patch`."""
        return replace(self, bank=tuple(int(rate * side) for side in self.bank))

    def stepping(self, step: int) -> Self:
        """The grid of inference that visits a location every `step` rows."""
        return replace(self, step=step, coarse=True)

    def grid(self, size: Size) -> tuple[int, int]:
        """Rows and columns of locations; OptionInvalid where `center` could not cover the image."""
        if self.kind == "center" and self.coarse:
            shape = -(-size.height // self.step), -(-size.width // (self.step * self.aspect))
        else:
            shape = low_resolution_shape(size.height, size.width, self.step, self.aspect)
        if self.kind == "center" and any(
            n * Q < N for n, Q, N in zip(shape, self.patch_shape, size.shape, strict=True)
        ):
            raise OptionInvalid(
                f"{shape[0]} x {shape[1]} windows of {self.patch_shape} rows and columns cannot cover "
                f"{size.height} x {size.width} pixels",
                hint=f"choose a step of at most {self.bank[0]}",
            )
        return shape

    def windows(self, size: Size, location: tuple[int, int]) -> list[Region]:
        """What each field of view covers at a location; may reach outside the image."""
        n_rows, n_columns = self.grid(size)
        return [
            Region(
                self._start(size.width, n_columns, location[1], side * self.aspect, self.aspect),
                self._start(size.height, n_rows, location[0], side, 1),
                side * self.aspect,
                side,
            )
            for side in self.bank
        ]

    def score_window(self, size: Size, location: tuple[int, int]) -> Region:
        """What the network's output at a location stands for: the smallest field of view; cut it at the border."""
        return self.label_window(size, location, 1)

    def label_window(self, size: Size, location: tuple[int, int], stride: int) -> Region:
        """The same in labels that were reduced by `stride` (training); `size` is that of the image."""
        if stride != 1 and (self.kind == "center" or self.outside == "none"):
            raise OptionInvalid(
                f"labels at stride {stride} exist in the padded geometry 'parity' only", hint="use labels of full size"
            )
        if self.kind == "center":
            return self.windows(size, location)[0]
        rows = self.bank[0] // stride
        return Region(
            self._label_start(size.width, location[1], self.aspect, stride),
            self._label_start(size.height, location[0], 1, stride),
            rows * self.aspect,
            rows,
        )

    def _start(self, N: int, n: int, i: int, P: int, factor: int) -> int:
        if self.kind == "center":
            # floor of centre - P / 2 + 1 / 2, the centre being (i + 1/2) N / n
            return ((2 * i + 1) * N - n * P + n) // (2 * n)
        Q = self.bank[0] * factor
        inset = Q // 2 - P // 2
        if self.adjust:
            return max(0, self._adjusted_origin(N, i, P, factor) + inset)
        start = i * self.step * factor + inset
        if self.outside != "none":
            return start
        if P > N:
            raise OptionInvalid(f"a field of view of {P} pixels does not fit into {N}", hint="use zeros outside")
        return min(max(start, 0), N - P)

    def _label_start(self, N: int, i: int, factor: int, stride: int) -> int:
        Q = self.bank[0] * factor
        if self.adjust:
            if Q > N:
                raise OptionInvalid(
                    f"the smallest field of view, {Q}, does not fit into {N} pixels", hint="switch the adjustment off"
                )
            return self._adjusted_origin(N, i, Q, factor) // stride
        # The code pads the labels by (Q - 1) // stride and divides the padded coordinate.
        return (i * self.step * factor + Q - 1) // stride - (Q - 1) // stride

    def _adjusted_origin(self, N: int, i: int, P: int, factor: int) -> int:
        """The code's `adjust_crop_range`: the location is moved for every field of view by itself."""
        step = self.step * factor
        moved = int(i * (N - P) / N) + (1 if i >= round(N / step) - 1 else 0)
        return min(moved * step, N - P)
