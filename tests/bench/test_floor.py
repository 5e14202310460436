"""The floor at a tiny size, for real: every figure is there and makes sense; nothing is judged by the clock."""

from pathlib import Path

import numpy as np
import pytest

from bench import images
from bench.floor import CASES, measure_accelerator, measure_case, table
from tests.worker.computed import write_image


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_floor_measures_engine_network_and_decoder(tmp_path: Path) -> None:
    scene = write_image(tmp_path / "scene.tif", np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8))
    record = measure_case(CASES["tiny-fcn"], scene, tmp_path, 2)
    assert record["forwards"] == 4
    assert all(len(record[key]["wall"]) == 2 for key in ("engine", "forward_only", "decode_only"))
    assert min(record["engine"]["cpu"]) > max(record["forward_only"]["cpu"]) > 0
    assert record["decode_only"]["pixels"] == 1024 * 1024
    assert {"look", "compute", "total"} <= set(record["stages"])
    assert "By stage of the engine" in table([record])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_accelerator_is_busy_for_a_part_of_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "HOME", tmp_path)
    record = measure_accelerator(CASES["accelerator"], images.sparse_scene(1), tmp_path, 2)
    assert len(record["accelerator"]["busy"]) == 2
    assert all(0 < busy <= 1 for busy in record["accelerator"]["busy"])
    assert "Simulated accelerator" in table([record])
