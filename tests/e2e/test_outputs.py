"""Files on request, over HTTP: listed, downloaded, opened, and the same as those of `foveate segment`."""

import numpy as np
import pytest
import rasterio
import zarr

from foveate.cli import run
from foveate.schema import JobState
from tests.e2e.test_service import blobs
from tests.worker.computed import write_image

ASKED = {
    "dense": (["--overlap", "0.5", "--mask-downsample", "2"], {"overlap": 0.5, "mask_downsample": 2}),
    "refined": (["--coverage", "refined", "--detail", "0.5"], {"coverage": "refined", "detail": 0.5}),
}


@pytest.mark.parametrize("coverage", ASKED)
def test_uncertainty_and_probabilities_come_as_foveate_segment_writes_them(
    service, bundles, tmp_path, monkeypatch, coverage
):
    client, _ = service
    words, options = ASKED[coverage]
    pixels = blobs(700)
    pixels[:100, :300] = 0
    image = write_image(tmp_path / "scene.tif", pixels, crs="EPSG:32633", nodata=0)
    job = client.submit(client.upload(image).id, outputs=["uncertainty", "probabilities"], **options).jobID
    assert client.wait(job).status is JobState.SUCCESSFUL
    listed = client._send("GET", f"/jobs/{job}/results").json()
    assert listed["uncertainty"]["title"] == "uncertainty.tif"
    assert listed["uncertainty"]["type"].startswith("image/tiff")
    assert listed["probabilities"]["title"] == "probabilities.zarr.zip"
    assert listed["probabilities"]["type"] == "application/zip"
    fetched, local = tmp_path / "fetched", tmp_path / "local"
    client.fetch(job, fetched)

    monkeypatch.setenv("FOVEATE_BUNDLES", str(bundles))
    words = [*words, "--outputs", "uncertainty,probabilities"]
    assert run(["segment", str(image), "--out", str(local), *words]) == 0
    assert (fetched / "uncertainty.tif").read_bytes() == (local / "uncertainty.tif").read_bytes()
    with rasterio.open(fetched / "uncertainty.tif") as file, rasterio.open(fetched / "mask.tif") as mask:
        entropy, labels = file.read(1), mask.read(1)
        assert (file.crs, file.transform) == (mask.crs, mask.transform)
    assert (np.isnan(entropy) == (labels == 255)).all()
    assert 0 <= np.nanmin(entropy) < np.nanmax(entropy) <= 1
    ours, theirs = (
        zarr.open_array(zarr.storage.ZipStore(fetched / "probabilities.zarr.zip", mode="r")),
        zarr.open_array(local / "probabilities.zarr", mode="r"),
    )
    assert dict(ours.attrs) == dict(theirs.attrs)
    np.testing.assert_array_equal(ours[:], theirs[:])
    seen = labels != 255
    assert (ours[:].argmax(axis=0)[seen] == labels[seen]).mean() > 0.999
