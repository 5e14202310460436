"""A service from Python: images in, jobs through, files out. The one module that speaks HTTP as a client."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import httpx
from pydantic import ValidationError

from foveate.errors import (
    FoveateError,
    ImageMissing,
    OutputExists,
    ServiceUnreachable,
    Unauthorized,
    Unexpected,
    error_of,
)
from foveate.options import option_error
from foveate.schema import BundleCard, JobState, ResultFile, SegmentOptions, StatusInfo, StoredImage

CHUNK = 1 << 20
"""Bytes a read while a file is sent or received."""
PATIENCE = 60.0
"""Seconds for which `wait` bears a service that does not answer, such as one that restarts."""

__all__ = ["Client"]


class Client:
    """One service at `url`. Every error is a FoveateError: the service's own, ServiceUnreachable where it does not
    answer, or what each method names.

    >>> with Client("http://127.0.0.1:8000") as client:          # doctest: +SKIP
    ...     image = client.upload(Path("slide.svs"))
    ...     job = client.wait(client.submit(image.id, model="glands").jobID)
    ...     client.fetch(job.jobID, Path("out"))
    """

    def __init__(self, url: str, api_key: str | None = None, *, timeout: float = 60.0) -> None:
        """`timeout` in seconds bounds each silence of the service, not a whole transfer."""
        headers = {b"Authorization": f"Bearer {api_key}".encode()} if api_key else {}
        self._url = url.rstrip("/")
        try:
            self._http = httpx.Client(base_url=self._url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise _unreachable(url, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def upload(self, path: Path, on_progress: Callable[[float], None] | None = None) -> StoredImage:
        """Sends one file (a slide of several files: a .zip of them) and returns what the service made of it.

        Raises ImageMissing for what is no file.
        """
        if not path.is_file():
            hint = "give a file; a slide of several files goes as one .zip" if path.exists() else "check the path"
            raise ImageMissing(f"{path} is not a file", hint=hint)
        size = path.stat().st_size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        # Long: after the last byte the service unpacks and probes before it answers.
        timeout = httpx.Timeout(60.0, read=600.0)
        stored = self._json(
            "POST",
            "/images",
            params={"name": path.name},
            content=_read_chunks(path, size, on_progress),
            headers=headers,
            timeout=timeout,
        )
        return StoredImage.model_validate(stored)

    def images(self) -> list[StoredImage]:
        return [StoredImage.model_validate(entry) for entry in self._json("GET", "/images")["images"]]

    def image(self, image_id: str) -> StoredImage:
        return StoredImage.model_validate(self._json("GET", f"/images/{image_id}"))

    def delete_image(self, image_id: str) -> None:
        self._send("DELETE", f"/images/{image_id}")

    def submit(self, image_id: str, *, idempotency_key: str | None = None, **options: Any) -> StatusInfo:
        """Starts a segmentation of a stored image; `options` are the fields of SegmentOptions, else OptionInvalid."""
        try:
            given = SegmentOptions.model_validate(options).model_dump(mode="json", exclude_unset=True)
        except ValidationError as error:
            raise option_error(error, "see the fields of foveate.schema.SegmentOptions") from error
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        body = {"inputs": {"image": image_id, **given}}
        return StatusInfo.model_validate(self._json("POST", "/processes/segment/execution", json=body, headers=headers))

    def job(self, job_id: str) -> StatusInfo:
        return StatusInfo.model_validate(self._json("GET", f"/jobs/{job_id}"))

    def jobs(self, **filters: str | int) -> list[StatusInfo]:
        """All jobs, newest first, or those that `filters` (status, datetime, minDuration…) let through."""
        found: list[StatusInfo] = []
        page: dict[str, Any] = self._json("GET", "/jobs", params={"limit": 1000, **filters})
        while True:
            found += [StatusInfo.model_validate(entry) for entry in page["jobs"]]
            following = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
            if following is None:
                return found
            # Only what the link asks for: behind a proxy its address may be another, and unencrypted.
            page = self._json("GET", "/jobs", params=dict(httpx.URL(following).params))

    def wait(
        self, job_id: str, on_progress: Callable[[StatusInfo], None] | None = None, *, every: float = 0.5
    ) -> StatusInfo:
        """Polls each `every` seconds until the job has ended; a failed one raises the error that it failed with."""
        silent_since: float | None = None
        while True:
            try:
                status = self.job(job_id)
            except ServiceUnreachable:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > PATIENCE:
                    raise
            else:
                silent_since = None
                if on_progress is not None:
                    on_progress(status)
                if status.status is JobState.FAILED:
                    self.results(job_id)
                if status.status.terminal:
                    return status
            time.sleep(every)

    def cancel(self, job_id: str) -> StatusInfo:
        """Dismisses a job that has not ended; removes one that has, with its results."""
        return StatusInfo.model_validate(self._json("DELETE", f"/jobs/{job_id}"))

    def results(self, job_id: str) -> dict[str, ResultFile]:
        """File name to link; raises ResultNotReady, ResultGone or the error that the job failed with."""
        links = self._json("GET", f"/jobs/{job_id}/results")
        return {link["title"]: ResultFile.model_validate(link) for link in links.values()}

    def fetch(self, job_id: str, out_dir: Path) -> list[Path]:
        """Downloads every result into the new directory `out_dir`, checked against its SHA-256.

        The directory appears complete or not at all. Raises OutputExists if it is there already, Unexpected where the
        bytes are not those that the service promised.
        """
        if out_dir.exists():
            raise OutputExists(f"{out_dir} exists already", hint="choose another directory, or remove this one")
        files = self.results(job_id)
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
        try:
            for name, file in files.items():
                # The path of the link, on the address that *we* reach: behind a proxy the two may differ.
                self._download(httpx.URL(file.href).raw_path.decode(), _inside(scratch, name), file.sha256)
            scratch.chmod(0o777 & ~_umask())
            scratch.rename(out_dir)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return sorted(out_dir / name for name in files)

    def preview(self, job_id: str, target: Path) -> Path:
        """Downloads the mask that a running job under refined coverage shows, as the new file `target`.

        Raises ResultNotReady before it is there, ResultGone once the job has ended, ResultUnknown under other coverage,
        and OutputExists if `target` is there already.
        """
        if target.exists():
            raise OutputExists(f"{target} exists already", hint="choose another file, or remove this one")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            return self._download(f"/jobs/{job_id}/preview", Path(scratch) / target.name).rename(target)

    def models(self) -> list[BundleCard]:
        return [BundleCard.model_validate(card) for card in self._json("GET", "/models")["models"]]

    def model(self, name: str) -> BundleCard:
        return BundleCard.model_validate(self._json("GET", f"/models/{name}"))

    def alive(self) -> None:
        """Returns if a Foveate answers, ready or not; raises ServiceUnreachable."""
        self._send("GET", "/healthz")

    def ready(self) -> None:
        """Returns if the service can take work; raises what keeps it from that, or ServiceUnreachable."""
        self._send("GET", "/readyz")

    def _json(self, method: str, path: str, **request: Any) -> Any:
        response = self._send(method, path, **request)
        try:
            return response.json()
        except ValueError:
            _foreign(response)

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from error
        return _checked(response)

    def _download(self, path: str, target: Path, sha256: str | None = None) -> Path:
        """`target`, with the bytes that our address has at `path`; without `sha256` their ETag says what theirs is."""
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._http.stream("GET", path) as response, target.open("xb") as out:
                if response.is_error:
                    response.read()
                _checked(response)
                promised = sha256 or response.headers.get("etag", "").strip('"')
                for chunk in response.iter_bytes(CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from error
        if digest.hexdigest() != promised:
            raise Unexpected(f"{target.name} arrived with another SHA-256 than promised", hint="fetch the job again")
        return target


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    try:
        problem = response.json()
        raise error_of(problem["code"], problem["detail"], problem["hint"])
    except (ValueError, KeyError, TypeError):
        _foreign(response)


def _foreign(response: httpx.Response) -> NoReturn:
    """An error without our body: a proxy answered, or something else listens there."""
    kind: type[FoveateError] = Unauthorized if response.status_code in (401, 403) else ServiceUnreachable
    message = f"{response.request.method} {response.request.url.path} was answered {response.status_code} by no Foveate"
    raise kind(message, hint="check that the address is a Foveate service, and any proxy between")


def _unreachable(url: str, error: Exception) -> ServiceUnreachable:
    reason = str(error) or type(error).__name__
    return ServiceUnreachable(
        f"no answer from {url}: {reason}", hint="check the address, and that the service runs (`foveate up`)"
    )


def _read_chunks(path: Path, size: int, on_progress: Callable[[float], None] | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            sent += len(chunk)
            if on_progress is not None:
                on_progress(sent / size)


def _inside(directory: Path, name: str) -> Path:
    """`directory / name`, unless the name would leave it: a service is not trusted with our file system."""
    target = directory / name
    if ".." in target.parts or not target.is_relative_to(directory):
        raise Unexpected(
            f"the service names a result {name!r}", hint="this service is broken or hostile: do not use it"
        )
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
