"""A service from Python: images in, jobs through, files out. The one module that speaks HTTP as a client."""

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from foveate.errors import (
    FoveateError,
    OptionInvalid,
    ServiceUnreachable,
    Unauthorized,
    Unexpected,
    UploadInvalid,
    error_of,
)
from foveate.localfiles import Part, arriving, check_image, check_new, inside, local_errors, reading_errors
from foveate.options import option_error
from foveate.schema import BundleCard, JobState, ResultFile, SegmentOptions, StatusInfo, StoredImage

CHUNK = 1 << 20
"""Bytes a read while a file is sent."""
PATIENCE = 60.0
"""Seconds for which a service that does not answer is borne, such as one that restarts, while work is under way."""
PAUSE = 0.5
"""Seconds between two tries."""

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """One service at `url`. Every error is a FoveateError: the service's own, ServiceUnreachable where it does not
    answer, or what each method names.

    >>> with Client("http://127.0.0.1:8000") as client:          # doctest: +SKIP
    ...     image = client.upload(Path("slide.svs"))
    ...     job = client.wait(client.submit(image.id, model="glands").jobID)
    ...     client.fetch(job.jobID, Path("out"))
    """

    def __init__(self, url: str, api_key: str | None = None, *, timeout: float = 60.0) -> None:
        """`timeout` in seconds bounds each silence of the service, not a whole transfer.

        OptionInvalid for a key that no header can hold.
        """
        headers = {b"Authorization": b"Bearer " + _header_value("the API key", api_key)} if api_key else {}
        self._url = url.rstrip("/")
        self._answered = False
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

        Raises ImageMissing for what is no file, or cannot be read, and UploadInvalid where it changes meanwhile.
        """
        check_image(path)
        with reading_errors(path):
            size = path.stat().st_size
            return self._read(
                StoredImage.model_validate,
                "POST",
                "/images",
                params={"name": path.name.encode("utf-8", "replace").decode()},  # it may be any bytes
                content=_read_chunks(path, size, on_progress),
                headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
                # Long: after the last byte the service unpacks and probes before it answers.
                timeout=httpx.Timeout(60.0, read=600.0),
            )

    def images(self) -> list[StoredImage]:
        return self._read(
            lambda page: [StoredImage.model_validate(entry) for entry in page["images"]], "GET", "/images"
        )

    def image(self, image_id: str) -> StoredImage:
        return self._read(StoredImage.model_validate, "GET", f"/images/{_segment(image_id)}")

    def delete_image(self, image_id: str) -> None:
        response = self._send("DELETE", f"/images/{_segment(image_id)}")
        if response.status_code != httpx.codes.NO_CONTENT:
            _foreign(response)

    def submit(self, image_id: str, *, idempotency_key: str | None = None, **options: Any) -> StatusInfo:
        """Starts a segmentation of a stored image; `options` are the fields of SegmentOptions, else OptionInvalid.

        A request whose answer is lost is sent again under the same key (default: a new one), so that there is one job.
        """
        try:
            given = SegmentOptions.model_validate(options).model_dump(mode="json", exclude_unset=True)
        except ValidationError as error:
            raise option_error(error, "see the fields of foveate.schema.SegmentOptions") from error
        headers = {b"Idempotency-Key": _header_value("idempotency_key", idempotency_key or secrets.token_hex(16))}
        body = {"inputs": {"image": image_id, **given}}
        return self._patiently(
            lambda: self._read(
                StatusInfo.model_validate, "POST", "/processes/segment/execution", json=body, headers=headers
            )
        )

    def job(self, job_id: str) -> StatusInfo:
        return self._read(StatusInfo.model_validate, "GET", f"/jobs/{_segment(job_id)}")

    def jobs(self, **filters: str | int) -> list[StatusInfo]:
        """All jobs, newest first, or those that `filters` (status, datetime, minDuration…) let through."""
        found: list[StatusInfo] = []
        query: dict[str, Any] | None = {"limit": 1000, **filters}
        while query is not None:
            page, query = self._read(_page, "GET", "/jobs", params=query)
            found += page
        return found

    def wait(
        self, job_id: str, on_progress: Callable[[StatusInfo], None] | None = None, *, every: float = 0.5
    ) -> StatusInfo:
        """Polls each `every` seconds until the job has ended; a failed one raises the error that it failed with."""
        while True:
            status = self._patiently(lambda: self.job(job_id), cold=True)
            if on_progress is not None:
                on_progress(status)
            if status.status is JobState.FAILED:
                self._patiently(lambda: self.results(job_id))
            if status.status.terminal:
                return status
            time.sleep(every)

    def cancel(self, job_id: str) -> StatusInfo:
        """Dismisses a job that has not ended; removes one that has, with its results."""
        return self._read(StatusInfo.model_validate, "DELETE", f"/jobs/{_segment(job_id)}")

    def results(self, job_id: str) -> dict[str, ResultFile]:
        """File name to link; raises ResultNotReady, ResultGone or the error that the job failed with."""
        return self._read(_links, "GET", f"/jobs/{_segment(job_id)}/results")

    def fetch(self, job_id: str, out_dir: Path) -> list[Path]:
        """Downloads every result into the new directory `out_dir`, checked against its SHA-256.

        The directory appears complete or not at all; a try that was cut off is gone on with. Raises OutputExists if it
        is there already, Unexpected where the bytes are not those that the service promised, DiskFull or OptionInvalid
        where they cannot be written.
        """
        check_new(out_dir)
        files = self._patiently(lambda: self.results(job_id))
        with arriving(out_dir, _segment(job_id)) as scratch:
            for name, file in files.items():
                # The path of the link, on the address that *we* reach: behind a proxy the two may differ.
                path = httpx.URL(file.href).raw_path.decode()
                self._download(path, Part.found(inside(scratch, name), f'"{file.sha256}"'), file.sha256)
        return sorted(out_dir / name for name in files)

    def preview(self, job_id: str, target: Path) -> Path:
        """Downloads the mask that a running job under refined coverage shows, as the new file `target`.

        Raises ResultNotReady before it is there, ResultGone once the job has ended, ResultUnknown under other coverage,
        and OutputExists if `target` is there already.
        """
        check_new(target)
        with local_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
                part = Part(Path(scratch) / target.name)
                self._download(f"/jobs/{_segment(job_id)}/preview", part)
                return part.target.rename(target)

    def models(self) -> list[BundleCard]:
        return self._read(lambda page: [BundleCard.model_validate(card) for card in page["models"]], "GET", "/models")

    def model(self, name: str) -> BundleCard:
        return self._read(BundleCard.model_validate, "GET", f"/models/{_segment(name)}")

    def alive(self) -> None:
        """Returns if a Foveate answers, ready or not; raises ServiceUnreachable."""
        self._read(_state, "GET", "/healthz")

    def ready(self) -> None:
        """Returns if the service can take work; raises what keeps it from that, or ServiceUnreachable."""
        self._read(_state, "GET", "/readyz")

    def _read(self, read: Callable[[Any], T], method: str, path: str, **request: Any) -> T:
        """What `read` makes of the answer's JSON."""
        response = self._send(method, path, **request)
        try:
            found = read(response.json())
        except (ValueError, KeyError, TypeError, AttributeError, httpx.InvalidURL):
            _foreign(response)
        self._answered = True
        return found

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from error
        return _checked(response)

    def _patiently(self, do: Callable[[], T], *, done: Callable[[], int] = int, cold: bool = False) -> T:
        """`do()`, again and again while the service is silent, for PATIENCE after it last answered or `done` grew.

        What has never answered as a Foveate does is not waited for, unless `cold`: its address may be wrong.
        """
        silent_since, before = time.monotonic(), done()
        while True:
            try:
                return do()
            except ServiceUnreachable:
                if done() != before:
                    silent_since, before = time.monotonic(), done()
                if not (self._answered or cold) or time.monotonic() - silent_since > PATIENCE:
                    raise
            time.sleep(PAUSE)

    def _download(self, path: str, part: Part, sha256: str | None = None) -> None:
        """Completes `part` with the bytes at `path` of our address; without `sha256` their ETag says what theirs is."""
        if sha256 is not None and part.digest.hexdigest() == sha256:
            return
        earlier = part.size
        tag = self._patiently(lambda: self._go_on(path, part), done=lambda: part.size)
        if part.digest.hexdigest() == (sha256 or tag.strip('"')):
            return
        if not earlier:
            message = f"{part.target.name} arrived with another SHA-256 than promised"
            raise Unexpected(message, hint="fetch the job again")
        part.restart()  # what the last try left was no part of it
        self._download(path, part, sha256)

    def _go_on(self, path: str, part: Part) -> str:
        """Adds what `part` lacks, or begins anew where the service has other bytes by now; returns their ETag."""
        rest = {"Accept-Encoding": "identity"}  # a range is one of what lies there, not of what a proxy makes of it
        if part.size:
            rest |= {"Range": f"bytes={part.size}-", "If-Range": part.tag}
        try:
            with self._http.stream("GET", path, headers=rest) as response:
                if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and part.size:
                    part.restart()
                    return self._go_on(path, part)
                if response.is_error:
                    response.read()
                _checked(response)
                if not response.headers.get("content-range", "").startswith(f"bytes {part.size}-"):
                    part.restart()
                part.tag = response.headers.get("etag", "")
                for chunk in response.iter_bytes():
                    part.add(chunk)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from error
        return part.tag


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    try:
        problem = response.json()
        raise error_of(str(problem["code"]), str(problem["detail"]), str(problem["hint"]))
    except (ValueError, KeyError, TypeError):
        _foreign(response)


def _foreign(response: httpx.Response) -> NoReturn:
    """No body of ours: a proxy answered, or something else listens there."""
    kind: type[FoveateError] = Unauthorized if response.status_code in (401, 403) else ServiceUnreachable
    message = f"{response.request.method} {response.request.url.path} was answered {response.status_code} by no Foveate"
    raise kind(
        message, hint="check that the address is a Foveate service of a version like ours, and any proxy between"
    )


def _unreachable(url: str, error: Exception) -> ServiceUnreachable:
    reason = str(error) or type(error).__name__
    return ServiceUnreachable(
        f"no answer from {url}: {reason}", hint="check the address, and that the service runs (`foveate up`)"
    )


def _read_chunks(path: Path, size: int, on_progress: Callable[[float], None] | None) -> Iterator[bytes]:
    """The `size` bytes of the file; UploadInvalid where it has more or fewer by the time that they are read."""
    changed = UploadInvalid(f"{path} changed while it was sent", hint="wait until it is written, and send it again")
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sent += len(chunk)
            if sent >= size and os.fstat(file.fileno()).st_size != size:  # before the service has as many as it expects
                raise changed
            yield chunk
            if on_progress is not None:
                on_progress(sent / size)
    if sent < size:
        raise changed


def _state(health: Any) -> str:
    return str(health["status"])


def _header_value(what: str, text: str) -> bytes:
    """`text` for a header; it is in no message, for it may be secret."""
    if text != text.strip() or any(character < " " or character == "\x7f" for character in text):
        hint = "set it anew; a file from which it was read may end in a line break"
        raise OptionInvalid(f"{what} holds a line break, a control character, or blanks around it", hint=hint)
    return text.encode()


def _segment(name: str) -> str:
    """`name` as one part of an address's path; no name may lead to another part of the service."""
    if name in ("", ".", ".."):
        raise OptionInvalid(
            f"{name!r} is no id", hint="`foveate jobs list` and `foveate images list` show those there are"
        )
    return quote(name, safe="")


def _page(page: Any) -> tuple[list[StatusInfo], dict[str, Any] | None]:
    """The jobs of a page, and what to ask for the next one."""
    following = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
    # Only what the link asks for: behind a proxy its address may be another, and unencrypted.
    query = None if following is None else dict(httpx.URL(following).params)
    return [StatusInfo.model_validate(entry) for entry in page["jobs"]], query


def _links(links: Any) -> dict[str, ResultFile]:
    files = [ResultFile.model_validate(link) for link in links.values()]
    for file in files:
        httpx.URL(file.href)  # raises what is none
    return {file.title: file for file in files}
