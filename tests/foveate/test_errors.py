"""What the disk says, as an error of ours."""

from pathlib import Path

import pytest

from foveate.errors import DiskFull, disk_errors


def test_a_full_disk_has_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="/dev/full") as full, disk_errors(Path("/dev/full"), "remove something"):
        Path("/dev/full").write_text("one byte too many")
    assert full.value.hint == "remove something"
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "nothing").read_text()
