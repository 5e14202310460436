"""What can go wrong, each with a stable code, a message that names the culprit and a hint that says what to do.

FoveateError
├── InputError                      exit 2: the caller can mend it
│   ├── OptionInvalid               an option's value, or a combination of options
│   ├── OutputExists                the output directory is already there
│   ├── CanvasMismatch              committed work of another configuration lies in the way
│   ├── ImageError
│   │   ├── ImageMissing            no such file
│   │   ├── ImageUnsupported        no reader takes this format
│   │   ├── ImageUnreadable         a reader takes it, and its pixels cannot be decoded
│   │   ├── ImageDamaged            too many tiles cannot be decoded
│   │   └── ImageLimits             more pixels, bands or bytes than the limits allow
│   └── FitError                    the image and the bundle do not go together
│       ├── BandsMismatch           number, order or type of the bands
│       ├── SpacingMismatch         unknown, in another unit, or out of the bundle's range
│       ├── KindMismatch            a slide through a scene bundle, or the other way round
│       └── ModelChoice             no bundle fits, or several do
│   └── BundleInvalid               a bundle breaks its contract
├── NotFound                        exit 2
│   ├── BundleUnknown, ImageUnknown, JobUnknown, ProcessUnknown, ResultUnknown
│   └── ResultNotReady, ResultGone
├── Conflict                        exit 2: ImageInUse, IdempotencyConflict
├── Refused                         exit 2: Unauthorized, UploadTooLarge, UploadInvalid
└── Failure                         exit 1: the work or the machine failed
    ├── CoverageHole, DiskFull, MemoryTooSmall, WorkerLost, Dismissed, EngineMissing, ServiceUnreachable, Unexpected
"""

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
    code = "input-invalid"
    exit_code = 2


class OptionInvalid(InputError):
    code = "option-invalid"


class OutputExists(InputError):
    code = "output-exists"


class CanvasMismatch(InputError):
    code = "canvas-mismatch"


class ImageError(InputError):
    code = "image-invalid"


class ImageMissing(ImageError):
    code = "image-missing"


class ImageUnsupported(ImageError):
    code = "image-unsupported"


class ImageUnreadable(ImageError):
    code = "image-unreadable"


class ImageDamaged(ImageError):
    code = "image-damaged"


class ImageLimits(ImageError):
    code = "image-limits"


class FitError(InputError):
    code = "fit"


class BandsMismatch(FitError):
    code = "bands-mismatch"


class SpacingMismatch(FitError):
    code = "spacing-mismatch"


class KindMismatch(FitError):
    code = "kind-mismatch"


class ModelChoice(FitError):
    code = "model-choice"


class BundleInvalid(InputError):
    code = "bundle-invalid"


class NotFound(FoveateError):
    code = "not-found"
    exit_code = 2


class BundleUnknown(NotFound):
    code = "no-such-model"


class ImageUnknown(NotFound):
    code = "no-such-image"


class JobUnknown(NotFound):
    code = "no-such-job"


class ProcessUnknown(NotFound):
    code = "no-such-process"


class ResultUnknown(NotFound):
    code = "no-such-result"


class ResultNotReady(NotFound):
    code = "result-not-ready"


class ResultGone(NotFound):
    code = "result-gone"


class Conflict(FoveateError):
    code = "conflict"
    exit_code = 2


class ImageInUse(Conflict):
    code = "image-in-use"


class IdempotencyConflict(Conflict):
    code = "idempotency-conflict"


class Refused(FoveateError):
    code = "refused"
    exit_code = 2


class Unauthorized(Refused):
    code = "unauthorized"


class UploadTooLarge(Refused):
    code = "upload-too-large"


class UploadInvalid(Refused):
    code = "upload-invalid"


class Failure(FoveateError):
    code = "failure"


class CoverageHole(Failure):
    code = "coverage-hole"


class DiskFull(Failure):
    code = "disk-full"


class MemoryTooSmall(Failure):
    code = "memory-too-small"


class WorkerLost(Failure):
    code = "worker-lost"
    retryable = True


class Dismissed(Failure):
    code = "dismissed"


class EngineMissing(Failure):
    code = "engine-missing"


class ServiceUnreachable(Failure):
    code = "service-unreachable"
    retryable = True


class Unexpected(Failure):
    code = "unexpected"


def error_of(code: str, message: str, hint: str) -> FoveateError:
    """The error of a stored or transmitted triple; a code of another version becomes Unexpected."""
    return _CODES.get(code, Unexpected)(message, hint=hint)


def _leaves_last(kind: type[FoveateError]) -> list[type[FoveateError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _leaves_last(child))]


_CODES: dict[str, type[FoveateError]] = {kind.code: kind for kind in _leaves_last(FoveateError)}
