"""What can go wrong, each with a stable code, a message that names the culprit and a hint that says what to do.

FoveateError
├── InputError                      exit 2
│   ├── OptionInvalid, OutputExists, CanvasMismatch, BundleInvalid
│   ├── ImageError: ImageMissing, ImageUnsupported, ImageUnreadable, ImageDamaged, ImageLimits
│   └── FitError: BandsMismatch, SpacingMismatch, KindMismatch, ModelChoice
├── NotFound                        exit 2
│   ├── BundleUnknown, ImageUnknown, JobUnknown, ProcessUnknown, ResultUnknown
│   └── ResultNotReady, ResultGone
├── Conflict                        exit 2: ImageInUse, IdempotencyConflict
├── Refused                         exit 2: Unauthorized, UploadTooLarge, UploadInvalid
└── Failure                         exit 1
    ├── CoverageHole, DeviceLost, DiskFull, MemoryTooSmall, WorkerLost
    └── Dismissed, EngineMissing, Interrupted, ServiceUnreachable, Unexpected
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class FoveateError(Exception):
    """The root: `code` is stable, `message` holds the offending value, `hint` says what to do next."""

    code: ClassVar[str] = "unexpected"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders; the keyword-only hint would be lost by the default.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[FoveateError], message: str, hint: str) -> FoveateError:
    return kind(message, hint=hint)


class InputError(FoveateError):
    """What the caller can mend."""

    code = "input-invalid"
    exit_code = 2


class OptionInvalid(InputError):
    """An option's value, or a combination of options."""

    code = "option-invalid"


class OutputExists(InputError):
    """The output is already there, or another process is making it."""

    code = "output-exists"


class CanvasMismatch(InputError):
    """Committed work of another configuration lies in the way."""

    code = "canvas-mismatch"


class ImageError(InputError):
    """An image that cannot be used."""

    code = "image-invalid"


class ImageMissing(ImageError):
    """No such file."""

    code = "image-missing"


class ImageUnsupported(ImageError):
    """No reader takes this format."""

    code = "image-unsupported"


class ImageUnreadable(ImageError):
    """A reader takes it, and its pixels cannot be decoded."""

    code = "image-unreadable"


class ImageDamaged(ImageError):
    """Too many tiles cannot be decoded."""

    code = "image-damaged"


class ImageLimits(ImageError):
    """More pixels, bands or bytes than the limits allow."""

    code = "image-limits"


class FitError(InputError):
    """The image and the bundle do not go together."""

    code = "fit"


class BandsMismatch(FitError):
    """Number, order or type of the bands."""

    code = "bands-mismatch"


class SpacingMismatch(FitError):
    """The spacing is unknown, in another unit, or out of the bundle's range."""

    code = "spacing-mismatch"


class KindMismatch(FitError):
    """A slide through a scene bundle, or the other way round."""

    code = "kind-mismatch"


class ModelChoice(FitError):
    """No bundle fits, or several do."""

    code = "model-choice"


class BundleInvalid(InputError):
    """A bundle breaks its contract."""

    code = "bundle-invalid"


class NotFound(FoveateError):
    """What was named is not there."""

    code = "not-found"
    exit_code = 2


class BundleUnknown(NotFound):
    """No bundle of that name."""

    code = "no-such-model"


class ImageUnknown(NotFound):
    """No image of that id, or it was deleted."""

    code = "no-such-image"


class JobUnknown(NotFound):
    """No job of that id, or it was removed."""

    code = "no-such-job"


class ProcessUnknown(NotFound):
    """The one process is `segment`."""

    code = "no-such-process"


class ResultUnknown(NotFound):
    """The job wrote no file of that name, or has no preview."""

    code = "no-such-result"


class ResultNotReady(NotFound):
    """The job has not ended yet, or is not as far as its preview."""

    code = "result-not-ready"


class ResultGone(NotFound):
    """The results were removed, or the preview of a job that has ended."""

    code = "result-gone"


class Conflict(FoveateError):
    """The present state does not allow it."""

    code = "conflict"
    exit_code = 2


class ImageInUse(Conflict):
    """A job that has not ended needs the image."""

    code = "image-in-use"


class IdempotencyConflict(Conflict):
    """The same Idempotency-Key came with other inputs."""

    code = "idempotency-conflict"


class Refused(FoveateError):
    """The request itself is refused."""

    code = "refused"
    exit_code = 2


class Unauthorized(Refused):
    """The key is missing or wrong."""

    code = "unauthorized"


class UploadTooLarge(Refused):
    """The upload is larger than the service takes."""

    code = "upload-too-large"


class UploadInvalid(Refused):
    """The body is no upload: a broken form or zip, or fewer bytes than announced."""

    code = "upload-invalid"


class Failure(FoveateError):
    """The work or the machine failed."""

    code = "failure"


class CoverageHole(Failure):
    """A valid pixel got no prediction."""

    code = "coverage-hole"


class DiskFull(Failure):
    """A disk has no room for the upload or the results."""

    code = "disk-full"


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errno of an OSError that means DiskFull: the disk, the quota or the largest file that it takes."""


@contextmanager
def disk_errors(path: Path, hint: str = "free space there, or use a larger disk") -> Iterator[None]:
    """A full disk or quota met while writing at `path` becomes DiskFull; any other OSError stays what it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskFull(f"no space left on the device of {path}", hint=hint) from error


class MemoryTooSmall(Failure):
    """The job cannot be done within the memory that it may use."""

    code = "memory-too-small"


class WorkerLost(Failure):
    """The process that did the work is gone."""

    code = "worker-lost"
    retryable = True


class DeviceLost(Failure):
    """A GPU failed under the work; the process that used it has to end."""

    code = "device-lost"
    retryable = True


class Dismissed(Failure):
    """The job was dismissed."""

    code = "dismissed"


class Interrupted(Failure):
    """Ctrl-C."""

    code = "interrupted"


class EngineMissing(Failure):
    """Only the client is installed, or a library is missing."""

    code = "engine-missing"


class ServiceUnreachable(Failure):
    """The service, or its Valkey, does not answer."""

    code = "service-unreachable"
    retryable = True


class Unexpected(Failure):
    """A defect of Foveate."""

    code = "unexpected"


def error_of(code: str, message: str, hint: str) -> FoveateError:
    """The error of a stored or transmitted triple; a code of another version becomes Unexpected."""
    return _CODES.get(code, Unexpected)(message, hint=hint)


def _leaves_last(kind: type[FoveateError]) -> list[type[FoveateError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _leaves_last(child))]


_CODES: dict[str, type[FoveateError]] = {kind.code: kind for kind in _leaves_last(FoveateError)}
