"""The options that several commands share, as the command line spells them: a segmentation's, and a service's."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from foveate.coverage import DEFAULT_DETAIL
from foveate.errors import OptionInvalid
from foveate.schema import DEVICES, SegmentOptions, checked_device


def _device(value: str) -> str:
    try:
        return checked_device(value)
    except ValueError as error:
        raise OptionInvalid(f"--device: {error}", hint="auto takes the first GPU where there is one") from error


ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Bundle; default: the only one that fits.")
]
LocalModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|DIR|RUN",
        help="Bundle by name, its directory, or a finished training run's; default: the only one that fits.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="DEVICE", help=f"{DEVICES}.", callback=_device)]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME",
        help="mean, mode, gumbel, fixed:K, average, random[:SEED] or ensemble; default: the bundle's.",
    ),
]
CoverageOption = Annotated[
    str | None, typer.Option("--coverage", metavar="NAME", help="dense, planned or refined; default: the bundle's.")
]
DetailOption = Annotated[
    float | None,
    typer.Option(
        "--detail",
        metavar="0..1",
        help=f"For planned and refined coverage; default: the bundle's, or {DEFAULT_DETAIL:g}.",
    ),
]
OverlapOption = Annotated[
    float, typer.Option("--overlap", metavar="0..0.75", help="Share of a patch that neighbours share.")
]
RoiOption = Annotated[str | None, typer.Option("--roi", metavar="X,Y,W,H", help="Rectangle in level-0 pixels.")]
SpacingOption = Annotated[
    float | None,
    typer.Option("--spacing", metavar="S", help="Side of a level-0 pixel in the bundle's unit; wins over the file's."),
]
BandsOption = Annotated[str | None, typer.Option("--bands", metavar="4,3,2", help="Bands to use, counted from 1.")]
RescaleOption = Annotated[
    str | None,
    typer.Option(
        "--rescale",
        metavar="LO,HI",
        help="Source values that become 0 and the top of the model's range: 255 for uint8.",
    ),
]
MaskDownsampleOption = Annotated[
    int, typer.Option("--mask-downsample", metavar="N", help="1, 2, 4, 8, … 1024: a smaller mask.")
]
TissueMaskOption = Annotated[
    bool, typer.Option("--tissue-mask/--no-tissue-mask", help="Skip the empty background of slides.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Use a model of another kind of image.")]
RegionsOption = Annotated[bool, typer.Option("--regions/--no-regions", help="Write the classes as polygons, too.")]
ServerOption = Annotated[
    str, typer.Option("--server", metavar="URL", envvar="FOVEATE_SERVER", help="Address of the service.")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", envvar="FOVEATE_API_KEY", help="The service's key.", show_envvar=True),
]
LOCAL_SERVER = "http://127.0.0.1:8000"
OutputsOption = Annotated[
    str | None, typer.Option("--outputs", metavar="NAME,…", help="More files: uncertainty, probabilities.")
]

__all__ = [
    "LOCAL_SERVER",
    "BandsOption",
    "CoverageOption",
    "DetailOption",
    "DeviceOption",
    "ForceOption",
    "KeyOption",
    "LocalModelOption",
    "MaskDownsampleOption",
    "ModelOption",
    "OutputsOption",
    "OverlapOption",
    "PolicyOption",
    "RegionsOption",
    "RescaleOption",
    "RoiOption",
    "ServerOption",
    "SpacingOption",
    "TissueMaskOption",
    "option_error",
    "segment_options",
]


def segment_options(
    *,
    roi: str | None = None,
    bands: str | None = None,
    rescale: str | None = None,
    outputs: str | None = None,
    **plain: Any,
) -> SegmentOptions:
    """`SegmentOptions` from command-line text; OptionInvalid names the option that is wrong."""
    values = dict(plain)
    if roi is not None:
        values["roi"] = _numbers("--roi", roi, float, 4)
    if bands is not None:
        values["bands"] = list(_numbers("--bands", bands, int, None))
    if rescale is not None:
        values["rescale"] = _numbers("--rescale", rescale, float, 2)
    if outputs is not None:
        values["outputs"] = [name.strip() for name in outputs.split(",") if name.strip()]
    try:
        return SegmentOptions.model_validate(values)
    except ValidationError as error:
        hint = "`foveate segment --help` lists every option and its range"
        raise option_error(error, hint, lambda name: "--" + name.replace("_", "-")) from error


def option_error(error: ValidationError, hint: str, spelling: Callable[[str], str] = str) -> OptionInvalid:
    """The first fault of `error` as one sentence that names the option as `spelling(name)`, and its value."""
    fault = error.errors(include_url=False)[0]
    reason = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return OptionInvalid(reason, hint=hint)
    name = spelling(str(fault["loc"][0]))
    if fault["type"] == "extra_forbidden":
        return OptionInvalid(f"there is no option {name}", hint=hint)
    return OptionInvalid(f"{name}: {reason} (given: {fault['input']!r})", hint=hint)


def _numbers(option: str, text: str, kind: type[int] | type[float], count: int | None) -> tuple[float, ...]:
    try:
        values = tuple(kind(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count is not None and len(values) != count):
        expected = f"{count} numbers" if count else "whole numbers"
        example = {"--roi": "0,0,4096,4096", "--bands": "4,3,2", "--rescale": "0,3000"}[option]
        raise OptionInvalid(
            f"{option} takes {expected} with commas between, got {text!r}", hint=f"such as {option} {example}"
        )
    return values
