"""What can go wrong, ordered by who must act.

PacelineError
|- InvalidRequest       the client changes the request
|  |- DecodeError           the body is not what its content type says
|  |- SignatureMismatch     inputs do not fit the model's signature
|  |- RequestTooLarge       over a configured limit
|  `- PreconditionFailed    this server or model is not set up for it
|- ModelNotFound        the client or the operator: no such model or version
|- ModelNotReady        the client retries: loading or draining
|- Overloaded           the client retries after `retry_after_s`
|- DeadlineExceeded     too late: the answer is worth nothing any more
|- Cancelled            the client left
|- ModelFailed          the model's author
|  `- Quarantined           these inputs have killed workers before: nobody runs them again for a while
|- InstanceLost         the client retries: the instance died
|- ConfigError          the operator, at start
|  `- Unreachable            no server is there to be asked
|- RuntimeUnavailable   the operator installs an extra
|- ModelLoadError       the operator: the model file is missing, corrupt or unsupported
|  `- UnsafeModel            reading it could run any code, and the operator has not allowed that
|- AddressUnavailable   the operator: the port is taken or not permitted
|- CannotChange         nobody: a change of the optimizer does not apply to this model
|- StepFailed           the operator: what runs in a process of its own while a model is optimized raised, died or hung
|- GeneratorFailed      the operator: a load test does not reach its target, or its client died
`- InternalError        us

No HTTP or gRPC number is known here: only `server/` translates `code` to the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

BAD_OUTPUT: Final = "bad_model_output"
"""The code of a `ModelFailed` whose outputs are not what was asked for, such as another number of rows."""
_MOST_SAID: Final = 500


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, of 500 characters at most; its class, where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip()[:_MOST_SAID] if lines else type(error).__name__


def named_line(error: BaseException) -> str:
    """The class of an exception, and the first line of what it says, if it says anything."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


class Detail(NamedTuple):
    """One place in the request and what is wrong there, such as `inputs[0].data[3]`."""

    path: str
    message: str


class PacelineError(Exception):
    """Base of every error Paceline raises.

    Args:
        message: what, where: expected, got.
        hint: what to do about it, shown on its own line.
        model: name of the model concerned.
    """

    code = "internal"
    retryable = False

    def __init__(self, message: str, *, hint: str | None = None, model: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.model = model

    def __str__(self) -> str:
        return self.message


class InvalidRequest(PacelineError):
    """The request can never succeed as it is."""

    code = "invalid_request"

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[Detail] = (),
        hint: str | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, model=model)
        self.details = tuple(details)


class DecodeError(InvalidRequest):
    """The body cannot be read."""

    code = "decode_error"


class SignatureMismatch(InvalidRequest):
    """The inputs do not fit the model's signature."""

    code = "signature_mismatch"


class RequestTooLarge(InvalidRequest):
    """The request is over a configured limit."""

    code = "request_too_large"


class PreconditionFailed(InvalidRequest):
    """The request is sound, but this server or model is not set up for it."""


class ModelNotFound(PacelineError):
    """No model, version or label of that name is served."""

    code = "model_not_found"


class ModelNotReady(PacelineError):
    """The model is loading, warming up or draining."""

    code = "model_not_ready"
    retryable = True


class Overloaded(PacelineError):
    """Refused at once, because it could not be answered inside its deadline or a bound is reached.

    Args:
        reason: `queue_full`, `queue_bytes`, `deadline_unreachable` or `no_worker`.
        retry_after_s: predicted seconds until the queue has drained.
    """

    code = "overloaded"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        reason: str = "queue_full",
        retry_after_s: float = 1.0,
        model: str | None = None,
    ) -> None:
        super().__init__(message, model=model)
        self.reason = reason
        self.retry_after_s = retry_after_s


class DeadlineExceeded(PacelineError):
    """The deadline passed before the answer, or certainly would."""

    code = "deadline_exceeded"


class Cancelled(PacelineError):
    """The client left."""

    code = "cancelled"


class ModelFailed(PacelineError):
    """The model raised, or its answer is unusable.

    Args:
        code: `model_failed`, `bad_model_output`, `nonfinite_output` or `stream_too_long`.
        detail: the model's own words, shown to clients in debug mode only.
    """

    code = "model_failed"

    def __init__(
        self,
        message: str,
        *,
        code: str = "model_failed",
        detail: str | None = None,
        hint: str | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, model=model)
        self.code = code
        self.detail = detail


class Quarantined(ModelFailed):
    """The inputs have killed the process that ran them, more than once."""

    code = "quarantined"

    def __init__(self, message: str, *, hint: str | None = None, model: str | None = None) -> None:
        super().__init__(message, code=self.code, hint=hint, model=model)


class InstanceLost(PacelineError):
    """The instance died while it held the request."""

    code = "instance_lost"
    retryable = True


class ConfigError(PacelineError):
    """A setting is unknown, malformed or contradictory."""

    code = "config_error"


class Unreachable(ConfigError):
    """There is no server at the address that was given, or it does not answer."""


class RuntimeUnavailable(PacelineError):
    """No installed runtime reads this model."""

    code = "runtime_unavailable"


class ModelLoadError(PacelineError):
    """The model is missing, corrupt or unsupported."""

    code = "model_load_error"


class UnsafeModel(ModelLoadError):
    """Reading the model can run whatever code its file holds."""

    code = "unsafe_model"


class AddressUnavailable(PacelineError):
    """The address cannot be bound."""

    code = "address_unavailable"


class CannotChange(PacelineError):
    """A change does not apply to this model; the message says why."""

    code = "cannot_change"


class StepFailed(PacelineError):
    """A process of the optimizer raised, died or took too long."""

    code = "step_failed"


class GeneratorFailed(PacelineError):
    """What sends the requests of a load test cannot go on."""

    code = "generator_failed"


class InternalError(PacelineError):
    """A defect in Paceline."""

    code = "internal"
