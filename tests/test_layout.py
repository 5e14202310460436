"""The tree is what design.md says: a light wheel, small files, and nothing heavy where it does not belong."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("foveate", "raster", "model", "worker", "jobs", "service")
LINES = 400
HEAVY = ("numpy", "torch", "rasterio", "openslide", "tifffile", "fastapi", "rq", "redis", "PIL")


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after `statement` ran in a fresh process."""
    code = f"{statement}; import sys; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_wheel_holds_foveate_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("foveate-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith("/METADATA")]
        text = archive.read(metadata).decode()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"foveate"}
    assert {"foveate/py.typed", "foveate/cli.py"} <= set(names)
    assert "torch" not in text.partition("\n\n")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_files_are_small(package: str) -> None:
    lines = {path: len(path.read_text().splitlines()) for path in (ROOT / package).rglob("*.py")}
    assert lines, f"{package}/ is empty"
    assert {str(path): count for path, count in lines.items() if count >= LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_comes_from_this_checkout(package: str) -> None:
    code = f"import {package}; print({package}.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == ROOT / package / "__init__.py"


def test_api_loads_no_torch() -> None:
    assert "fastapi" in modules_loaded_by("import service.app")
    assert not {"torch", "torchvision", "segmentation_models_pytorch"} & modules_loaded_by("import service.app")


def test_command_line_loads_nothing_heavy() -> None:
    assert not set(HEAVY) & modules_loaded_by("import foveate.cli")


def test_import_arrows_hold() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
