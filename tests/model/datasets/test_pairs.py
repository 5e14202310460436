"""The general layout: patterns that pair by what their wildcards stand for, lists, and what does not pair."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foveate.errors import FoveateError, ImageMissing, OptionInvalid
from model.datasets.config import Scenes
from model.datasets.layouts import find_pairs
from tests.model.datasets.scenes import pairs_data


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(folder: Path, **scene: Any) -> list[tuple[list[str], list[str]]]:
    data = pairs_data(folder, train=[scene])
    return [
        ([path.name for path in pair.images], [path.name for path in pair.labels]) for pair in find_pairs(data, "train")
    ]


def test_wildcards_pair_what_sorting_would_not(tmp_path: Path) -> None:
    """`train_10_anno` sorts before `train_1_anno`, `train_10` after `train_1`."""
    files(tmp_path, *(f"i/train_{k}.png" for k in (1, 2, 10)), *(f"i/train_{k}_anno.png" for k in (1, 2, 10)))
    found = names_of(tmp_path, images="i/train_[0-9].png", labels="i/train_?_anno.png")
    assert found == [([f"train_{k}.png"], [f"train_{k}_anno.png"]) for k in (1, 2)]
    files(tmp_path, *(f"l/train_{k}_anno.png" for k in (1, 2, 10)), *(f"j/train_{k}.png" for k in (1, 2, 10)))
    found = names_of(tmp_path, images="j/*.png", labels="l/*_anno.png")
    assert found == [([f"train_{k}.png"], [f"train_{k}_anno.png"]) for k in (1, 2, 10)]


def test_folders_may_be_wild_too(tmp_path: Path) -> None:
    files(tmp_path, "a/x/1.tif", "b/1.tif", "a/x/1.geojson", "b/1.geojson")
    found = names_of(tmp_path, images="**/*.tif", labels="**/*.geojson")
    assert len(found) == 2


def test_parts_of_a_mosaic_follow_their_numbers(tmp_path: Path) -> None:
    files(tmp_path, *(f"i/part_{k}.png" for k in range(1, 13)), *(f"l/part_{k}.png" for k in range(1, 13)))
    ((images, labels),) = names_of(tmp_path, images="i/*.png", labels="l/*.png", mosaic=(4, 3))
    assert images == labels == [f"part_{k}.png" for k in range(1, 13)]


@pytest.mark.parametrize(
    ("scene", "error", "said"),
    [
        ({"images": "none/*", "labels": "l/*"}, ImageMissing, "no file matches .*none"),
        ({"images": "i/*.png", "labels": "l/1.png"}, OptionInvalid, "2 images match .* 1 labels"),
        ({"images": "i/*.png", "labels": "m/*.png"}, OptionInvalid, r"2\.png has no label file"),
        ({"images": "i/*.png", "labels": "l/*.png", "mosaic": (3, 3)}, OptionInvalid, "2 files.*3 x 3 has 9"),
        ({"images": "/i/*.png", "labels": "l/*.png"}, OptionInvalid, "no pattern"),
        ({"csv": "missing.csv"}, ImageMissing, r"missing\.csv"),
        ({"csv": "empty.csv"}, OptionInvalid, "lists nothing"),
        ({"csv": "headless.csv"}, OptionInvalid, "line 2: image or label is missing"),
        ({"csv": "gone.csv"}, ImageMissing, r"line 5: there is no .*9\.png"),
        ({"csv": "long.csv"}, ImageMissing, "line 2: there is no"),
    ],
)
def test_what_does_not_pair_is_named(
    tmp_path: Path, scene: dict[str, Any], error: type[FoveateError], said: str
) -> None:
    files(tmp_path, "i/1.png", "i/2.png", "l/1.png", "l/2.png", "m/1.png", "m/3.png")
    (tmp_path / "empty.csv").write_text("image,label\n")
    (tmp_path / "headless.csv").write_text("i/1.png,l/1.png\ni/2.png,l/2.png\n")
    (tmp_path / "gone.csv").write_text("image,label\ni/1.png,l/1.png\n\n\ni/2.png,l/9.png\n")
    (tmp_path / "long.csv").write_text(f"image,label\n{'i' * 5000},l/1.png\n")
    with pytest.raises(error, match=said):
        names_of(tmp_path, **scene)


def test_a_csv_lists_pairs_in_its_order(tmp_path: Path) -> None:
    files(tmp_path, "i/1.png", "i/2.png", "l/1.png", "l/2.png")
    (tmp_path / "list.csv").write_text(f"image,label,note\ni/2.png,l/1.png,x\n{tmp_path}/i/1.png,l/2.png,\n")
    assert names_of(tmp_path, csv="list.csv") == [(["2.png"], ["1.png"]), (["1.png"], ["2.png"])]


@pytest.mark.parametrize(
    "fields", [{}, {"images": "*"}, {"csv": "a.csv", "images": "*", "labels": "*"}, {"csv": "a.csv", "mosaic": (2, 2)}]
)
def test_a_scene_is_given_in_one_way(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Scenes.model_validate(fields)
