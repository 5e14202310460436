"""`foveate images`: what a service holds."""

from typing import Annotated

import typer

from foveate.client import Client
from foveate.options import LOCAL_SERVER, KeyOption, ServerOption
from foveate.output import JsonFlag, print_result, print_table


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
    with Client(server, api_key) as client:
        deleted: list[str] = []
        try:
            for image in images:
                client.delete_image(image)
                deleted.append(image)
        finally:  # where one cannot be deleted, those before it are gone all the same
            print_result({"deleted": deleted}, "\n".join(f"{image}: deleted" for image in deleted), as_json)
