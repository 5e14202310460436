"""Do an image and a bundle go together, and if not, what would help (design 2). Reads descriptions only, no pixels."""

from collections.abc import Mapping
from dataclasses import dataclass

from foveate.card import check_policy
from foveate.errors import FitError, KindMismatch, ModelChoice, OptionInvalid, SpacingMismatch
from foveate.schema import BundleCard, ImageInfo, InputCard, SegmentOptions, SpacingInfo
from raster.bands import BandPlan, plan_bands
from raster.geometry import Region

_RATIO_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Fit:
    """How one image is shown to one bundle.

    `ratio`: level-0 pixels per working pixel along x and y, exact; (1.0, 1.0) where both grids are one. `spacing`: the
    side of a level-0 pixel that was used, None where nobody knows it.
    """

    bands: BandPlan
    ratio: tuple[float, float]
    spacing: SpacingInfo | None
    warnings: tuple[str, ...]


def fit(info: ImageInfo, card: BundleCard, options: SegmentOptions) -> Fit:
    """The image as the bundle wants it; KindMismatch, SpacingMismatch or BandsMismatch with the remedy otherwise."""
    kind_warnings = _checked_kind(info, card, options)
    ratio, spacing, spacing_warnings = _spacing(info, card, options)
    bands = plan_bands(info, card.input, options)
    return Fit(bands, ratio, spacing, (*kind_warnings, *spacing_warnings, *bands.warnings))


def region_of_interest(info: ImageInfo, options: SegmentOptions) -> Region:
    """The ROI snapped outwards to level-0 pixels and cut at the border; the whole image without one.

    OptionInvalid where it lies outside the image.
    """
    whole = Region(0, 0, info.width, info.height)
    if options.roi is None:
        return whole
    x, y, width, height = options.roi
    region = Region.snapped_out(x, y, x + width, y + height).intersection(whole)
    if region.empty:
        raise OptionInvalid(
            f"roi {x:g},{y:g},{width:g},{height:g} lies outside the image of {info.width} x {info.height} pixels",
            hint="give X,Y,W,H in level-0 pixels, counted from the top left corner",
        )
    return region


def choose_bundle(info: ImageInfo, cards: Mapping[str, BundleCard], options: SegmentOptions) -> str:
    """The name of the only one of `cards` (by name) that fits.

    None or several fit: ModelChoice, which says why each does or does not.
    """
    fits: dict[str, Fit] = {}
    refusals: dict[str, FitError] = {}
    for name in sorted(cards):
        try:
            fits[name] = fit(info, cards[name], options)
        except FitError as error:
            refusals[name] = error
    if len(fits) == 1:
        return next(iter(fits))
    raise _no_choice(info, fits, refusals)


def _no_choice(info: ImageInfo, fits: dict[str, Fit], refusals: dict[str, FitError]) -> ModelChoice:
    if not fits and not refusals:
        return ModelChoice("no bundle is installed", hint="add one with `foveate models add DIR`")
    reasons = "; ".join(f"{name}: {error.message}" for name, error in refusals.items())
    if not fits:
        # Where a bundle for this kind of image can be had, the wrong kind's remedy would only distract.
        near = {name: error for name, error in refusals.items() if not isinstance(error, KindMismatch)} or refusals
        hints = "; ".join(f"for {name}: {error.hint}" for name, error in near.items())
        return ModelChoice(f"no bundle fits {info.name}. {reasons}", hint=hints)
    message = f"several bundles fit {info.name}: {', '.join(fits)}"
    return ModelChoice(
        f"{message}. {reasons}" if reasons else message,
        hint=f"choose one with {' or '.join(f'--model {name}' for name in fits)}",
    )


def checked_policy_for(card: BundleCard, policy: str | None) -> str:
    """The policy to run: `policy`, or the bundle's own; OptionInvalid where the bundle cannot follow it."""
    chosen = card.policy if policy is None else policy
    check_policy(chosen, fovs=len(card.fovs), mapping=card.mapping, foveated=card.foveation is not None)
    return chosen


def _checked_kind(info: ImageInfo, card: BundleCard, options: SegmentOptions) -> tuple[str, ...]:
    if card.input.kind == "any" or info.kind in ("picture", card.input.kind):
        return ()
    if not options.force:
        raise KindMismatch(
            f"{info.name} is a {info.kind}, and {card.name} was trained on {card.input.kind}s",
            hint="choose a bundle for it with --model, or say --force if you know better",
        )
    return (f"a {info.kind} through {card.name}, a bundle for {card.input.kind}s (--force)",)


def _spacing(
    info: ImageInfo, card: BundleCard, options: SegmentOptions
) -> tuple[tuple[float, float], SpacingInfo | None, tuple[str, ...]]:
    """Ratio, spacing used, warnings."""
    wanted = card.input
    if wanted.spacing is None or wanted.spacing_unit is None:
        warnings = [
            f"{card.name} does not say which pixel size it was trained at (scale unknown to the model): "
            "masks of much coarser or finer images may be poor"
        ]
        if options.spacing is not None:
            warnings.append(f"--spacing {options.spacing:g} changes nothing: {card.name} states no spacing")
        return (1.0, 1.0), info.spacing, tuple(warnings)
    if options.spacing is not None:
        used = SpacingInfo(x=options.spacing, y=options.spacing, unit=wanted.spacing_unit, origin="--spacing")
    elif info.spacing is None:
        raise SpacingMismatch(
            f"the spacing of {info.name} is unknown, and {card.name} was trained at {_stated(wanted)}",
            hint=f"say --spacing S, the side of a pixel in {_unit(wanted)} ({_range(wanted)})",
        )
    else:
        used = info.spacing
    _check_range(used, info, card)
    warnings = _disagreement(info, used)
    return (_ratio(wanted.spacing, used.x), _ratio(wanted.spacing, used.y)), used, tuple(warnings)


def _check_range(used: SpacingInfo, info: ImageInfo, card: BundleCard) -> None:
    wanted = card.input
    if used.unit != wanted.spacing_unit:
        raise SpacingMismatch(
            f"a pixel of {info.name} is {_sides(used)} ({used.origin}), and {card.name} needs {_unit(wanted)}",
            hint=f"say --spacing S, the side of a pixel in {_unit(wanted)} ({_range(wanted)}), if you know it",
        )
    if wanted.spacing_range is None:
        return
    low, high = wanted.spacing_range
    if not all(low <= side <= high for side in (used.x, used.y)):
        hint = f"say --spacing S ({_range(wanted)}) if the file is wrong, or choose another bundle with --model"
        if used.origin == "--spacing":
            hint = f"give a spacing in {_unit(wanted)}, {_range(wanted)}, or choose another bundle with --model"
        raise SpacingMismatch(
            f"a pixel of {info.name} is {_sides(used)} ({used.origin}), and {card.name} takes {_range(wanted)}",
            hint=hint,
        )


def _disagreement(info: ImageInfo, used: SpacingInfo) -> list[str]:
    stated = info.spacing
    if used.origin != "--spacing" or stated is None:
        return []
    if (stated.x, stated.y, stated.unit) == (used.x, used.y, used.unit):
        return []
    return [f"--spacing {used.x:g} wins over {_sides(stated)} ({stated.origin})"]


def _ratio(working: float, side: float) -> float:
    ratio = working / side
    return 1.0 if abs(ratio - 1.0) <= _RATIO_TOLERANCE else ratio


def _sides(spacing: SpacingInfo) -> str:
    sides = f"{spacing.x:.6g}" if spacing.x == spacing.y else f"{spacing.x:.6g} x {spacing.y:.6g}"
    return f"{sides} {'µm' if spacing.unit == 'um' else 'm'}"


def _unit(wanted: InputCard) -> str:
    return "micrometres" if wanted.spacing_unit == "um" else "metres"


def _stated(wanted: InputCard) -> str:
    return f"{wanted.spacing:g} {'µm' if wanted.spacing_unit == 'um' else 'm'}"


def _range(wanted: InputCard) -> str:
    if wanted.spacing_range is None:
        return "any"
    return f"{wanted.spacing_range[0]:g} to {wanted.spacing_range[1]:g} {'µm' if wanted.spacing_unit == 'um' else 'm'}"
