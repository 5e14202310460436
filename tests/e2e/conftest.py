"""The service as its users meet it: real HTTP, real Valkey, real workers, the real pipeline."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from foveate.client import Client
from tests.bundles import CURVE, make_bundle
from tests.foveate.test_up import running_up


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    common = {"kind": "scene", "spacing": None, "mapping": "explicit", "policy": "mode"}
    make_bundle(root / "scenes", name="scenes", coverage={"curve": CURVE}, **common)
    return root


@pytest.fixture(scope="session")
def service(tmp_path_factory, bundles) -> Iterator[tuple]:
    """The client of a running service, and the process of `foveate up`."""
    data = tmp_path_factory.mktemp("data")
    with running_up(data, FOVEATE_BUNDLES=str(bundles), OMP_NUM_THREADS="1") as (process, url), Client(url) as client:
        yield client, process
