"""Rings of degrees that may cross the antimeridian or go round a pole, as polygons between -180 and 180 degrees."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

Coordinates = NDArray[np.float64]
"""(n, 2): longitude and latitude in degrees, or x and y."""


def unwrapped(ring: Coordinates) -> Coordinates:
    """The ring without jumps of 360 degrees from corner to corner; equal corners stay equal to the last bit."""
    turns = np.round((np.unwrap(ring[:, 0], period=360) - ring[:, 0]) / 360)
    return np.stack([ring[:, 0] + 360 * turns, ring[:, 1]], axis=1)


def on_globe(exterior: Coordinates, holes: Sequence[Coordinates]) -> shapely.Geometry:
    """What the unwrapped rings bound, between -180 and 180 degrees: cut at the antimeridian, but nowhere else.

    What a ring bounds, a hole too, lies to its left: of one that goes round the Earth nothing else tells which pole.
    """
    if not any(map(_goes_round, (exterior, *holes))):
        shape = shapely.Polygon(exterior, [_brought_inside(hole, exterior) for hole in holes])
        first, last = _turns(shape)
        if first == last:
            return _moved(shape, -first)
    return shapely.difference(_wrapped(exterior), shapely.union_all([_wrapped(hole) for hole in holes]))


def _goes_round(ring: Coordinates) -> bool:
    """Whether the ring goes once round the Earth, and a pole with it."""
    return bool(abs(ring[-1, 0] - ring[0, 0]) >= 180)


def _brought_inside(hole: Coordinates, exterior: Coordinates) -> Coordinates:
    """The hole, moved by whole turns until it starts right of the exterior's west end."""
    turns = float(np.ceil((exterior[:, 0].min() - hole[:, 0].min() - 1e-6) / 360))
    return np.stack([hole[:, 0] + 360 * turns, hole[:, 1]], axis=1)


def _wrapped(ring: Coordinates) -> shapely.Geometry:
    """What one ring bounds, between -180 and 180 degrees; what goes round the Earth reaches up to the pole."""
    if _goes_round(ring):
        ring = _closed_at_the_pole(ring)
    polygon = shapely.Polygon(ring)
    whole = polygon if polygon.is_valid else shapely.make_valid(polygon)
    first, last = _turns(polygon)
    worlds = [(turn, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)) for turn in range(first, last + 1)]
    # Together, for where a ring begins they may share a side.
    return shapely.union_all([_moved(shapely.intersection(whole, world), -turn) for turn, world in worlds])


def _closed_at_the_pole(ring: Coordinates) -> Coordinates:
    """The ring with the pole to its left: the north pole, if it goes eastwards."""
    turn = 360.0 if ring[-1, 0] > ring[0, 0] else -360.0
    pole = np.copysign(90.0, turn)
    # From the corner next to the pole, for the way to it from any other one may cross the ring.
    nearest = int(np.argmax(ring[:-1, 1] * np.sign(pole)))
    rolled = np.concatenate([ring[nearest:-1], ring[: nearest + 1] + np.array([turn, 0])])
    return np.concatenate([rolled, [[rolled[-1, 0], pole], [rolled[0, 0], pole], rolled[0]]])


def _turns(polygon: shapely.Polygon) -> tuple[int, int]:
    """How many turns east of -180..180 the polygon begins and ends."""
    west, _, east, _ = polygon.bounds
    return int((west + 180 + 1e-9) // 360), int((east + 180 - 1e-9) // 360)


def _moved(geometry: shapely.Geometry, turns: int) -> shapely.Geometry:
    return shapely.transform(geometry, lambda points: points + np.array([360.0 * turns, 0]))


def polygons_of(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    """Those of the geometry's parts that have an area."""
    # Twice: a collection may hold a MultiPolygon.
    parts = shapely.get_parts(shapely.get_parts(geometry)).tolist()
    return [part for part in parts if isinstance(part, shapely.Polygon) and not part.is_empty]
