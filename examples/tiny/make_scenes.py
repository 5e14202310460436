"""Draw four small scenes with their labels, to train and to try on: lakes, woods, and houses that throw shadows.

usage: python examples/tiny/make_scenes.py [DIR]        (default: runs/tiny-scenes)

Shadows have the colour of water, so that who looks closely needs to know more than colours. Everything is invented, the
place on Earth (UTM zone 32 north, pixels of 1 m) too. The same numbers give the same pixels.
"""

import sys
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rasterio import Affine

SIDES = {"a": 512, "b": 512, "c": 512, "test": 1024}
LAND, WATER, WOOD, ROOF, SHADOW = range(5)
"""What is drawn; a shadow is labelled as the land that it lies on."""
COLOURS = np.array([[148, 158, 96], [44, 66, 92], [62, 92, 58], [176, 84, 66], [44, 66, 92]])

__all__ = ["draw", "make_scenes"]


def draw(side: int, chance: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours (3, side, side) and labels (side, side) of one scene."""
    ground = np.where(hills(side, 48, chance) > 1.0, WATER, LAND)
    ground[(hills(side, 12, chance) > 0.8) & (ground == LAND)] = WOOD
    canvas = Image.fromarray(ground.astype(np.uint8))
    for x, y in chance.uniform(0, side, (side * side // 2500, 2)):
        if ground[int(y), int(x)] == LAND:
            house(ImageDraw.Draw(canvas), x, y, chance)
    drawn = np.asarray(canvas)
    texture = chance.normal(0, 9, (side, side, 1)) + 8 * hills(side, 4, chance)[..., None]
    colours = np.clip(COLOURS[drawn] + texture, 0, 255).astype(np.uint8)
    return np.moveaxis(colours, 2, 0), np.where(drawn == SHADOW, LAND, drawn).astype(np.uint8)


def hills(side: int, radius: int, chance: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise of mean 0 and deviation 1, in lumps of about `radius` pixels."""
    coarse = chance.normal(0, 1, (side // radius + 4,) * 2)
    grown = Image.fromarray(coarse.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    smooth = np.asarray(grown, np.float64)
    return (smooth - smooth.mean()) / smooth.std()


def house(pen: ImageDraw.ImageDraw, x: float, y: float, chance: np.random.Generator) -> None:
    """A roof, turned as it likes, and its shadow to the lower right."""
    angle = chance.uniform(0, np.pi)
    along, across = chance.uniform(5, 10), chance.uniform(4, 6)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (along, across) @ turn.T + (x, y)
    for shift, value in ((5, SHADOW), (0, ROOF)):
        pen.polygon([tuple(corner) for corner in corners + shift], fill=value)


def make_scenes(folder: Path) -> None:
    """Write `folder`/images/NAME.tif and `folder`/labels/NAME.png."""
    for number, (name, side) in enumerate(SIDES.items()):
        colours, labels = draw(side, np.random.default_rng(number))
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        place = {"crs": "EPSG:32632", "transform": Affine(1, 0, 400_000 + 2000 * number, 0, -1, 5_300_000)}
        profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "tiled": True}
        with rasterio.open(folder / "images" / f"{name}.tif", "w", photometric="RGB", **profile, **place) as scene:
            scene.write(colours)
        Image.fromarray(labels).save(folder / "labels" / f"{name}.png")


if __name__ == "__main__":
    make_scenes(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/tiny-scenes"))
