"""What a file is: in this process, or in a child process that a hostile file may crash, hang or fill.

The child is `python -m raster.probe`: it reads one JSON request from stdin, limits itself, opens the image as any
reader would, and writes one JSON answer to stdout.
"""

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError, ImageError, ImageLimits, ImageUnreadable, error_of
from foveate.schema import ImageInfo
from raster.image import ImageRef, open_image

_PR_SET_PDEATHSIG = 1
_DAMAGED_HINT = "open it in another program and export it again as a tiled TIFF"
_LIMITS_HINT = "if the file is sound, write it again as a tiled TIFF with blocks of 256 to 1024 pixels"


def probe(ref: ImageRef) -> ImageInfo:
    """What the file says of itself; ImageError if no reader can open it and decode a tile."""
    with closing(open_image(ref)) as image:
        return image.info


def probe_in_child(
    path: Path,
    *,
    name: str | None = None,
    sidecars: bool = False,
    timeout_s: float = 60.0,
    memory_bytes: int = 2 << 30,
) -> ImageInfo:
    """As `probe`, but a crash, a hang or a flood of memory ends the child alone.

    `name` is shown instead of the path's name, in the description and in errors. A crash raises ImageUnreadable; more
    than `timeout_s` (of wall clock or of CPU) or `memory_bytes` (of address space) raises ImageLimits.
    """
    shown = name or path.name
    request = {"path": str(path), "sidecars": sidecars, "seconds": timeout_s, "memory_bytes": memory_bytes}
    with subprocess.Popen(
        [sys.executable, "-m", "raster.probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    ) as child:
        try:
            answer, _ = child.communicate(json.dumps(request).encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise _too_long(shown, timeout_s) from None
        finally:
            _kill_group(child)
    if not answer:
        raise _silent(shown, child.returncode, timeout_s)
    return _read_answer(json.loads(answer), path, shown)


def main() -> int:
    """One request on stdin, one answer on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not stand in the answer
    request = json.load(sys.stdin)
    _limit(request["seconds"], request["memory_bytes"])
    json.dump(_answer(ImageRef(Path(request["path"]), sidecars=request["sidecars"])), answers)
    answers.close()
    return 0


def _answer(ref: ImageRef) -> dict[str, Any]:
    try:
        return {"info": probe(ref).model_dump_json()}
    except FoveateError as error:
        return {"error": [error.code, error.message, error.hint]}
    except MemoryError:
        message = f"{ref.path.name} needs more memory than an image may take before its first tile is read"
        return {"error": [ImageLimits.code, message, _LIMITS_HINT]}
    except Exception as error:
        # A library's own exception that no reader expected: the file is at fault until shown otherwise.
        message = f"{ref.path.name} cannot be read: {type(error).__name__}: {error}"
        return {"error": [ImageUnreadable.code, message, _DAMAGED_HINT]}


def _limit(seconds: float, memory_bytes: int) -> None:
    """Bounds for this process, and its end when its parent ends."""
    cpu_s = max(1, round(seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    # While the child has not been waited for, its process group cannot be another's; after that there is none to kill.
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)


def _too_long(shown: str, timeout_s: float) -> ImageLimits:
    return ImageLimits(f"{shown} could not be opened within {timeout_s:g} seconds", hint=_LIMITS_HINT)


def _silent(shown: str, returncode: int, timeout_s: float) -> ImageError:
    if returncode == -signal.SIGXCPU:
        return _too_long(shown, timeout_s)
    if returncode == -signal.SIGKILL:
        return ImageLimits(f"{shown} needs more memory than this machine gives to opening one image", hint=_LIMITS_HINT)
    reason = signal.Signals(-returncode).name if returncode < 0 else f"exit {returncode}"
    return ImageUnreadable(f"opening {shown} crashed the reader ({reason})", hint=_DAMAGED_HINT)


def _read_answer(answer: dict[str, Any], path: Path, shown: str) -> ImageInfo:
    if "info" in answer:
        return ImageInfo.model_validate_json(answer["info"]).model_copy(update={"name": shown})
    code, message, hint = (_renamed(text, path, shown) if k else text for k, text in enumerate(answer["error"]))
    raise error_of(code, message, hint)


def _renamed(text: str, path: Path, shown: str) -> str:
    """`text` with the user's name for the file where the child wrote ours."""
    for own in (str(path), path.name):
        text = re.sub(rf"(?<![\w.-]){re.escape(own)}(?![\w-])", lambda _: shown, text)
    return text


if __name__ == "__main__":
    sys.exit(main())
