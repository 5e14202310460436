"""The inputs of an execution, checked against the image and the bundle before a job exists."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foveate.coverage import checked_coverage
from foveate.errors import OptionInvalid
from foveate.options import option_error
from foveate.schema import SegmentOptions
from jobs.catalog import Catalog
from jobs.files import FileStore
from jobs.records import JobRequest
from raster.fit import checked_policy_for, choose_bundle, fit, region_of_interest
from service.outputs import ON_REQUEST, OUTPUT_IDS

__all__ = ["Asked", "Execute", "asked_for", "job_request"]


class Execute(BaseModel):
    """OGC API - Processes, execute: what is not known here is refused, by name."""

    model_config = ConfigDict(extra="forbid")

    inputs: dict[str, Any]
    """`image` and the options of a segmentation."""
    outputs: dict[str, dict[str, Any]] | None = None
    """What is made on request alone is asked for by its name here, or in the input `outputs`; the rest always is."""
    response: str = Field("document", pattern="^(document|raw)$")
    """Tolerated: results are links, whatever it says."""


@dataclass(frozen=True)
class Asked:
    """A job as it is asked for, before anything is looked up: `image` is an id, `options.model` may be left open."""

    image: str
    options: SegmentOptions

    def repeats(self, first: JobRequest) -> bool:
        """Whether the job that came of this, or of the same words, is `first`."""
        options = self.options.model_copy(update={"model": self.options.model or first.model})
        return (self.image, options) == (first.image, first.options)


def asked_for(execute: Execute, base: str) -> Asked:
    """`execute`, read; OptionInvalid names the input. `base`: our own address, as the client knows it."""
    wanted = _wanted_outputs(execute.outputs)
    inputs = dict(execute.inputs)
    image = _image_id(inputs.pop("image", None), base)
    try:
        # Strict, and as JSON: a number in quotes is a mistake, and an array is a tuple.
        options = SegmentOptions.model_validate_json(json.dumps(inputs), strict=True)
    except ValidationError as error:
        raise option_error(error, "GET /processes/segment describes every input") from error
    if "regions" in wanted and not options.regions:
        raise OptionInvalid("outputs asks for regions, and the input regions is false", hint="leave one of them out")
    more = [name for name in ON_REQUEST if name in wanted and name not in options.outputs]
    return Asked(image, options.model_copy(update={"outputs": [*options.outputs, *more]}))


def job_request(asked: Asked, files: FileStore, catalog: Catalog) -> JobRequest:
    """The job that is asked for, checked.

    Raises OptionInvalid naming the input, ImageUnknown, BundleUnknown, or a FitError with the reason why the image and
    the bundle do not go together.
    """
    image, options = files.image(asked.image), asked.options
    region_of_interest(image.info, options)
    if options.model is None:
        cards = {bundle.card.name: bundle.card for bundle in catalog.bundles()}
        card = cards[choose_bundle(image.info, cards, options)]
    else:
        # Not from the list: the bundle may be here and broken, and then the reason is wanted.
        card = catalog.bundle(options.model).card
        fit(image.info, card, options)
    checked_policy_for(card, options.policy)
    checked_coverage(card, options)
    return JobRequest(image.id, card.name, options.model_copy(update={"model": card.name}))


def _image_id(value: object, base: str) -> str:
    """The id in "ID", or in {"href": link to an image of this service}."""
    match value:
        case str():
            return value
        case {"href": str() as href}:
            return _linked_id(href, base)
        case None:
            raise OptionInvalid(
                "the input image is missing", hint='send {"inputs": {"image": "ID"}}, the id of an upload'
            )
    message = f"image: {value!r} is neither an id nor a link"
    raise OptionInvalid(message, hint='send "ID", or {"href": "…/images/ID"}')


def _linked_id(href: str, base: str) -> str:
    try:
        link = urlsplit(href)
    except ValueError as error:
        raise OptionInvalid(f"image: {href!r} is no link: {error}", hint="send the id of an upload") from error
    folder, _, image_id = link.path.rpartition("/")
    ours = link.netloc in ("", urlsplit(base).netloc) and folder.endswith("/images")
    if not ours or not image_id:
        raise OptionInvalid(
            f"image: {href!r} is no image of this service, and links elsewhere are not followed",
            hint=f"upload the image with POST {base}/images and link to what Location says",
        )
    return image_id


def _wanted_outputs(outputs: Mapping[str, Mapping[str, Any]] | None) -> Collection[str]:
    known = ", ".join(OUTPUT_IDS.values())
    if outputs is None:
        return ()
    if not outputs:
        hint = f"leave it out for all outputs but those on request ({', '.join(ON_REQUEST)}): {known}"
        raise OptionInvalid("outputs is empty", hint=hint)
    for name, wanted in outputs.items():
        if name not in OUTPUT_IDS.values():
            raise OptionInvalid(f"there is no output {name!r}", hint=f"the outputs are {known}")
        if wanted.get("transmissionMode", "reference") != "reference":
            message = f"outputs.{name}.transmissionMode: results are links, got {wanted['transmissionMode']!r}"
            raise OptionInvalid(message, hint='say "reference", or leave it out')
    return outputs.keys()
