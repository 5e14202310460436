"""How an upload becomes an image: received, unpacked, probed in a child process, and then visible by one rename."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from anyio import CancelScope, CapacityLimiter, move_on_after, sleep
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect

from foveate.errors import UploadInvalid
from foveate.schema import ImageInfo
from jobs.files import FileStore
from jobs.records import ImageRecord, new_id
from service.archives import is_zip, plain_name, unpack_slide
from service.bodies import Body
from service.uploads import Limits, receive

Probe = Callable[[Path, str], ImageInfo]
"""Looks at a stored file, under the name that its sender gave it; raises ImageError."""

_AT_ONCE = 4
"""Uploads that are unpacked and looked at beside each other: a hostile one takes a minute of a core and its memory."""
_END_SECONDS = 5.0
_TICK_SECONDS = 0.05

__all__ = ["Intake", "Probe"]


@dataclass(frozen=True)
class Intake:
    """The one door for images."""

    files: FileStore
    limits: Limits
    probe: Probe
    at_once: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_AT_ONCE))
    """Threads of its own, so that slow files keep no other request waiting."""
    under_way: set[Path] = field(default_factory=set)
    """Where uploads lie that are no images yet; changes with each."""

    async def take(self, body: Body) -> ImageRecord:
        """Stores the upload as a new image, even if the same bytes are here already: ids are never shared.

        Raises UploadInvalid, UploadTooLarge, DiskFull or an ImageError; then nothing is left of the upload.
        """
        async with self._staging() as staging:
            arrived = staging / "upload"
            try:
                received = await receive(body.stream, body.declared, arrived, self.limits)
            except ClientDisconnect as error:
                raise UploadInvalid("the connection ended before the upload did", hint="send it again") from error
            entry = await run_sync(self._place, arrived, body.name, staging / "content", limiter=self.at_once)
            info = await run_sync(self.probe, staging / "content" / entry, body.name, limiter=self.at_once)
            image = ImageRecord(
                id=new_id(),
                name=body.name,
                sha256=received.sha256,
                bytes=received.bytes,
                created=datetime.now(UTC),
                entry=entry,
                info=info,
            )
            await run_sync(partial(self.files.commit_image, staging, image))
        return image

    @asynccontextmanager
    async def _staging(self) -> AsyncIterator[Path]:
        staging = await run_sync(self.files.new_upload)
        self.under_way.add(staging)
        try:
            yield staging
        finally:
            # After the commit's rename there is nothing left under this name.
            with CancelScope(shield=True):
                await run_sync(self.files.drop_upload, staging)
            self.under_way.discard(staging)

    async def end(self) -> None:
        """Leaves nothing of the uploads that the end of the server cuts, which does not wait for their clearing up."""
        with move_on_after(_END_SECONDS):
            while self.under_way:
                await sleep(_TICK_SECONDS)
        for staging in list(self.under_way):
            await run_sync(self.files.drop_upload, staging)

    def _place(self, arrived: Path, name: str, content: Path) -> str:
        if not is_zip(arrived):
            entry = plain_name(name)
            arrived.rename(content / entry)
            return entry
        entry = unpack_slide(arrived, content, self.limits)
        arrived.unlink()
        return entry
