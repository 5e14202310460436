"""`foveate images`: what a service holds."""

from typing import Annotated, Any

import typer

from foveate.client import Client
from foveate.errors import FoveateError
from foveate.options import LOCAL_SERVER, KeyOption, ServerOption
from foveate.output import JsonFlag, error_document, print_error, print_result, print_table


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="List and delete the images of a service.", no_args_is_help=True)
    group.command("list")(list_images)
    group.command()(delete)
    app.add_typer(group, name="images")


def list_images(server: ServerOption = LOCAL_SERVER, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """List the images, newest first."""
    with Client(server, api_key) as client:
        images = client.images()
    rows = [
        (image.id, f"{image.info.width} x {image.info.height}", f"{image.bytes / 1e6:.1f} MB", image.info.name)
        for image in images
    ]
    print_table({"images": images}, ("image", "pixels", "size", "name"), rows, as_json)


def delete(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Ids of images.")],
    server: ServerOption = LOCAL_SERVER,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete images that no unfinished job uses; results of their jobs stay."""
    deleted: list[str] = []
    failure: FoveateError | None = None
    with Client(server, api_key) as client:
        for image in images:
            try:
                client.delete_image(image)
            except FoveateError as error:
                failure = error
                break
            deleted.append(image)
    # Where one cannot be deleted, those before it are gone all the same.
    document: dict[str, Any] = {"deleted": deleted}
    if failure is not None:
        document["error"] = error_document(failure)
    print_result(document, "\n".join(f"{image}: deleted" for image in deleted), as_json)
    if failure is not None:
        print_error(failure)
        raise typer.Exit(failure.exit_code)
