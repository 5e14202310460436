"""A pipeline that writes small files, and does what the image's name says: "slow…" goes on until it is dismissed,
"damaged…" fails with an error of ours.
"""

import hashlib
import json
import time
from collections.abc import Callable

from foveate.errors import Dismissed, ImageDamaged
from worker.spec import JobSpec

MASK = bytes(range(256)) * 400


def run(spec: JobSpec, report: Callable[[str, float], None], dismissed: Callable[[], bool]) -> None:
    if spec.image_name.startswith("damaged"):
        raise ImageDamaged("3 of 9 tiles cannot be decoded", hint="export the slide again")
    while spec.image_name.startswith("slow"):
        report("segmenting", 0.5)
        if dismissed():
            raise Dismissed("stopped", hint="submit it again")
        time.sleep(0.05)
    statistics = json.dumps({"options": spec.options.model_dump(mode="json")}).encode()
    spec.out.mkdir()
    files = {"mask.tif": MASK, "statistics.json": statistics}
    for name, content in files.items():
        (spec.out / name).write_bytes(content)
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    (spec.out / "manifest.json").write_text(json.dumps({"files": listed}))
