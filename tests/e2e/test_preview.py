"""The mask after the coarse pass of refined coverage, over HTTP, while the rest of the job is computed."""

import hashlib
import time

import httpx
import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from foveate.cli import run
from foveate.errors import JobUnknown, OutputExists, ResultGone, ResultNotReady, ResultUnknown
from foveate.schema import JobState
from tests.e2e.test_service import blobs
from tests.worker.computed import write_image

SIDE = 2800
"""Large enough that refining it takes many times as long as asking for its preview."""


def shown(client, job: str) -> httpx.Response:
    """The first answer that is a preview; whatever is asked before says that there is none yet."""
    while True:
        answer = client._http.get(f"/jobs/{job}/preview")
        if answer.status_code == 200:
            return answer
        assert (answer.status_code, answer.json()["code"]) == (404, ResultNotReady.code), answer.text
        assert answer.json()["hint"].endswith("rel preview")
        time.sleep(0.01)


def test_the_preview_is_there_whole_from_the_coarse_pass_to_the_end(service, tmp_path, capsys):
    client, _ = service
    url = client._url
    pixels = blobs(SIDE)
    image = client.upload(write_image(tmp_path / "scene.tif", pixels, crs="EPSG:32633", compress="deflate")).id
    job = client.submit(image, coverage="refined", detail=1.0).jobID
    first = shown(client, job)
    whole = first.content
    etag = f'"{hashlib.sha256(whole).hexdigest()}"'
    assert (first.headers["etag"], first.headers["content-length"]) == (etag, str(len(whole)))

    while "preview" not in (status := client.job(job)).message:
        assert status.status is JobState.RUNNING
        time.sleep(0.01)
    assert "/" not in status.message, "no path of the server's"
    links = {link.rel: link for entry in (status, *client.jobs(status="running")) for link in entry.links}
    assert links["preview"].href == f"{url}/jobs/{job}/preview"
    assert links["preview"].type == first.headers["content-type"]
    part = httpx.get(links["preview"].href, headers={"Range": "bytes=2-99", "If-Range": etag})
    assert (part.status_code, part.content) == (206, whole[2:100])
    assert httpx.get(links["preview"].href, headers={"If-None-Match": etag}).status_code == 304
    assert httpx.head(links["preview"].href).headers["content-length"] == str(len(whole))
    out = tmp_path / "preview.tif"
    assert run(["jobs", "preview", job, "--server", url, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_bytes() == whole
    with pytest.raises(OutputExists):
        client.preview(job, out)

    # Behind it: jobs that have none yet, and such as never will.
    waiting = client.submit(image, coverage="refined", detail=0.0, roi=(0, 0, 300, 300)).jobID
    with pytest.raises(ResultNotReady, match="accepted at 0 %"):
        client.preview(waiting, tmp_path / "none.tif")
    for options in ({"coverage": "planned"}, {}):
        other = client.submit(image, **options).jobID
        with pytest.raises(ResultUnknown, match="planned" if options else "dense"):
            client.preview(other, tmp_path / "none.tif")
        client.cancel(other)
    with pytest.raises(JobUnknown):
        client.preview("0" * 20, tmp_path / "none.tif")

    client.cancel(job)
    with pytest.raises(ResultGone, match="dismissed"):
        client.preview(job, tmp_path / "none.tif")
    assert [link.rel for link in client.job(job).links] == ["self"]
    done = client.wait(waiting)
    assert done.status is JobState.SUCCESSFUL
    assert "preview" not in {link.rel for link in done.links}
    assert not [name for name in client.results(waiting) if "preview" in name]
    with pytest.raises(ResultGone, match="successful"):
        client.preview(waiting, tmp_path / "none.tif")
    assert not list(tmp_path.glob("*none*"))

    check_coarse_mask(out, pixels)


def check_coarse_mask(path, pixels):
    """One pixel for each 4 x 4 of the image, dark and bright as the network that saw only those tells them apart."""
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as file:
        labels = file.read(1)
        assert file.transform.almost_equals(rasterio.Affine(8, 0, 1000, 0, -8, 9000))
        assert file.crs.to_epsg() == 32633
    bright = pixels.reshape(SIDE // 4, 4, SIDE // 4, 4, 3).mean((1, 3, 4)) > 127.5
    assert labels.shape == bright.shape
    assert (labels == bright).mean() > 0.98
    assert set(np.unique(labels)) == {0, 1}
