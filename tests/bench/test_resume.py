"""A small job that is really killed half way and run again."""

from pathlib import Path

import pytest

from bench import images
from bench.models import pixelwise
from bench.resume import measure_one


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("coverage", ["dense", "refined"])
def test_a_killed_job_goes_on_and_every_forward_is_counted(
    coverage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "HOME", tmp_path)
    bundle = pixelwise(tmp_path, 2, patch=32)
    record = measure_one(images.sparse_scene(1), bundle, tmp_path, {"coverage": coverage})
    assert record["forwards"] // 2 <= record["killed_at"] < record["forwards"]
    assert 0 <= record["repeated"] < 0.5
    assert 0 < record["rest"] <= record["forwards"]
    assert record["same"]
