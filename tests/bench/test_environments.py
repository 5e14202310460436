"""What a peer's environment shares with this one."""

from bench.environments import SHARED, closure


def test_what_is_shared_holds_torch_and_all_that_it_loads() -> None:
    names = {dist.name.lower().replace("_", "-") for dist in closure(SHARED)}
    assert {"torch", "torchvision", "numpy", "timm", "rasterio", "segmentation-models-pytorch"} <= names


def test_what_only_developers_need_is_not_shared() -> None:
    names = {dist.name.lower() for dist in closure(SHARED)}
    assert not names & {"pytest", "ruff", "mypy", "fastapi", "rq"}
