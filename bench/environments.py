"""A virtual environment for each peer, whose large packages are hard links to those that Foveate itself runs with.

They lie under ~/.cache/foveate-bench, or in the directory that FOVEATE_BENCH_ENVIRONMENTS names, and stay there; one
is made anew once its requirements change. Torch is the same build everywhere, so a difference in time is not torch's.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOME = Path(os.environ.get("FOVEATE_BENCH_ENVIRONMENTS", Path.home() / ".cache" / "foveate-bench"))
SHARED = ("segmentation-models-pytorch", "torchvision", "rasterio", "psutil", "safetensors")
"""With all that they need; torch among it."""
PINNED = ("torch", "torchvision", "segmentation-models-pytorch", "timm")
_INSTALL_SECONDS = 3600
_REASON = 300
"""Characters of a reason that are kept: the last ones."""


class NotInstalled(Exception):
    """A peer's environment cannot be made; the text is the installer's own reason."""


def python_of(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of the environment `name`, which is made first if it is not there; raises NotInstalled."""
    home = HOME / name
    python, stamp = home / "bin" / "python", home / "installed.txt"
    wanted = "\n".join((*requirements, *_pins()))
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(home, ignore_errors=True)
    print(f"making {home}", file=sys.stderr)
    _checked([sys.executable, "-m", "venv", "--without-pip", str(home)])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    _link(closure(SHARED), home / "lib" / version / "site-packages")
    if requirements:
        _install(python, requirements, home / "pins.txt")
    stamp.write_text(wanted)
    return python


def _install(python: Path, requirements: Sequence[str], pins: Path) -> None:
    """Without regard to bounds on what is shared: a peer that forbids this torch is tried with it all the same."""
    pins.write_text("\n".join(_pins()))
    command = [str(_uv()), "pip", "install", "--quiet", "--native-tls", "--link-mode", "hardlink"]
    command += ["--cache-dir", str(HOME / "uv-cache"), "--python", str(python), "--override", str(pins)]
    _checked([*command, *requirements])


def _uv() -> Path:
    """The installer: it shares packages between environments, and resolves in seconds what takes pip an hour."""
    home = HOME / "uv"
    if not (home / "bin" / "uv").exists():
        _checked([sys.executable, "-m", "venv", str(home)])
        _checked([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"])
    return home / "bin" / "uv"


def closure(names: Iterable[str]) -> list[Distribution]:
    """The named distributions of this interpreter and all that they require here, with the extras that they ask for."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        dist = found[canonicalize_name(name)] = distribution(name)
        for line in dist.requires or ():
            needs = Requirement(line)
            if needs.marker is None or needs.marker.evaluate({"extra": extra}):
                waiting += [(needs.name, wanted) for wanted in ("", *needs.extras)]
    return list(found.values())


def _link(distributions: Iterable[Distribution], site: Path) -> None:
    """Hard links (copies across file systems) of the distributions' files that lie in this one's site-packages."""
    own = Path(sysconfig.get_path("purelib"))
    for dist in distributions:
        for file in dist.files or ():
            source = Path(str(dist.locate_file(file))).resolve()
            if file.parts[0] == ".." or not source.is_file() or not source.is_relative_to(own.resolve()):
                continue  # scripts name their interpreter in their first line
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)


def _pins() -> list[str]:
    return [f"{name}=={distribution(name).version}" for name in PINNED]


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise NotInstalled(" ".join(said.split())[-_REASON:])
