"""Images: taken in, listed, described, deleted. An image never changes; the same bytes sent twice are two images."""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from foveate.errors import DiskFull, ImageInUse, ImageUnknown, ImageUnreadable, ImageUnsupported, UploadTooLarge
from foveate.schema import StoredImage
from jobs.records import ImageRecord
from service.bodies import open_body
from service.deps import Base, State
from service.errors import responses
from service.examples import IMAGE, shown

router = APIRouter(prefix="/images", tags=["images"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file's bytes; a .zip is one slide of several files.",
        "content": {
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
                "example": "curl --data-binary @scene.tif 'http://127.0.0.1:8000/images?name=scene.tif'",
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                },
                "example": {"file": "curl -F file=@scene.tif http://127.0.0.1:8000/images"},
            },
        },
    }
}


class ImageList(BaseModel):
    images: list[StoredImage]


@router.post(
    "",
    status_code=201,
    summary="Upload an image",
    openapi_extra=_BODY,
    responses={
        201: shown(IMAGE, "The image is stored; `Location` names it")
        | {"headers": {"Location": {"description": "Absolute link to the image", "schema": {"type": "string"}}}},
        **responses(ImageUnreadable, ImageUnsupported, UploadTooLarge, DiskFull),
    },
)
async def upload_image(
    request: Request,
    response: Response,
    state: State,
    base: Base,
    name: Annotated[
        str | None,
        Query(description="The file's name, for display; else from Content-Disposition", examples=["scene.tif"]),
    ] = None,
) -> StoredImage:
    """Streams the body to disk, then opens it in a child process with limits; what no reader takes is refused."""
    image = await state.intake.take(await open_body(request, name))
    response.headers["Location"] = f"{base}/images/{image.id}"
    return _shown_image(image)


@router.get("", summary="List the images", responses={200: shown({"images": [IMAGE]}, "Newest first")})
def list_images(state: State) -> ImageList:
    return ImageList(images=[_shown_image(image) for image in state.files.list_images()])


@router.get(
    "/{image_id}",
    summary="Describe an image",
    responses={200: shown(IMAGE, "The image"), **responses(ImageUnknown)},
)
def show_image(image_id: str, state: State) -> StoredImage:
    return _shown_image(state.files.image(image_id))


@router.delete(
    "/{image_id}",
    status_code=204,
    summary="Delete an image",
    responses={204: {"description": "It is gone; results of its jobs stay"}, **responses(ImageUnknown, ImageInUse)},
)
def delete_image(image_id: str, state: State) -> None:
    state.files.image(image_id)
    state.store.retire_image(image_id)
    with suppress(ImageUnknown):  # the sweep, or another request, was faster
        state.files.delete_image(image_id)


def _shown_image(image: ImageRecord) -> StoredImage:
    return StoredImage(id=image.id, sha256=image.sha256, bytes=image.bytes, created=image.created, info=image.info)
