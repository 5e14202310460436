"""The shared material that tests read in place: beside the checkout, or where FOVEATE_SHARED_DIR says."""

import os
from pathlib import Path

_BESIDE = Path(__file__).parents[2] / "shared"

SHARED = Path(os.environ.get("FOVEATE_SHARED_DIR", _BESIDE if _BESIDE.is_dir() else "/work/shared"))
DATA = SHARED / "data"
