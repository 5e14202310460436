"""A pipeline that commits blocks as the real one does, and misbehaves as the image's name tells it to.

The name is JSON: `blocks`, `seconds` (work a block), `log` (one line for every block computed), and a fault:
`die_at` (killed after computing block k, before its commit, every time), `deaf` (never asks whether it is dismissed),
`hang_at` (silent for ever from block k on, in the first attempt), `error` (raises this exception of foveate.errors;
"Crash": another one).
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import foveate.errors
from foveate.errors import Dismissed
from worker.spec import JobSpec


def run(spec: JobSpec, report: Callable[[str, float], None], dismissed: Callable[[], bool]) -> None:
    script = json.loads(spec.image_name)
    if script.get("error") == "Crash":
        raise RuntimeError("the fake crashed")
    if "error" in script:
        raise getattr(foveate.errors, script["error"])("the fake failed", hint="ask it not to")
    for index in range(script["blocks"]):
        if dismissed() and not script.get("deaf"):
            raise Dismissed("stopped", hint="submit it again")
        block = spec.canvas / f"block-{index}"
        if not block.exists():
            _compute(block, index, script)
        report("segmenting", (index + 1) / script["blocks"])
    spec.out.mkdir()
    blocks = [(spec.canvas / f"block-{k}").read_text() for k in range(script["blocks"])]
    (spec.out / "mask.tif").write_text("".join(blocks))


def _compute(block: Path, index: int, script: dict[str, int]) -> None:
    with Path(str(script["log"])).open("a") as log:
        log.write(f"{index}\n")
    time.sleep(script.get("seconds", 0.0))
    if script.get("die_at") == index:
        os.kill(os.getpid(), signal.SIGKILL)
    mark = block.with_name("hung")
    if script.get("hang_at") == index and not mark.exists():
        mark.touch()
        time.sleep(3600)
    partial = block.with_suffix(f".{os.getpid()}")
    partial.write_text(f"{index},")
    partial.rename(block)
