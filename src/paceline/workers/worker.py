"""One process that hosts an instance, as the server sees it.

Its life: started (`Worker`), recognised (`hello`), initialised (`setup`), and then either asked while the caller
waits (`run`, for measuring), or attached to an event loop and told to `start` calls.

Rules:
- Every wait has a deadline.
- A worker that says what is no frame, or nothing for too long, is killed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar, cast

from paceline.core.errors import (
    InstanceLost,
    ModelFailed,
    ModelLoadError,
    PacelineError,
    RuntimeUnavailable,
    UnsafeModel,
)
from paceline.core.tensors import Tensors
from paceline.workers import frames, launch, tensors
from paceline.workers.arena import Arena
from paceline.workers.channel import HUNG_UP, Channel, Closed
from paceline.workers.frames import About, BadFrame, Frame, Kind, Readiness, Setup, Trouble

_T = TypeVar("_T")

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
# What a worker gets to end by itself, once its channel is closed.
_GRACE_S: Final = 2.0
# A process that has been killed is gone within this time, unless the kernel waits for a device.
_KILLED_S: Final = 2.0
# The channel of a process that dies closes a moment before it is dead, and can tell what it died of.
_DYING_S: Final = 0.05
_ORPHANS_S: Final = 0.2


class Codec(Protocol):
    """How batches travel to workers of one language.

    Attributes:
        one_call: set to False when the worker has said that it takes several calls at once.
    """

    one_call: bool

    def encode(self, inputs: Tensors) -> Sequence[bytes | memoryview]:
        """The body of RUN."""

    def decode(self, body: memoryview) -> Tensors:
        """The outputs in a RESULT, in memory that nobody writes to any more.

        Raises:
            BadFrame: it is none.
        """

    def close(self) -> None:
        """Let go of what is shared with the worker."""


class PythonCodec:
    """Tensors as they lie in memory; large ones in memory that is shared.

    Attributes:
        one_call: there is one call at a time. Only then is there a moment when shared memory may be written again.
    """

    def __init__(self) -> None:
        self.one_call = True
        self.arenas = Arena.new(), Arena.new()

    def encode(self, inputs: Tensors) -> Sequence[bytes | memoryview]:
        if not self.one_call:
            return tensors.encode(inputs)
        self.arenas[1].offer()
        return tensors.encode(inputs, self.arenas[0])

    def decode(self, body: memoryview) -> Tensors:
        outputs, failed = tensors.decode(body, self.arenas[1], lend=True)
        try:
            for each in failed:
                outputs[0][each.row] = each.error()
        except (IndexError, TypeError, ValueError):
            raise BadFrame(f"an error for row {each.row}, which cannot have one") from None
        return outputs

    def close(self) -> None:
        for arena in self.arenas:
            arena.close()


class Listener(Protocol):
    """Who is told what becomes of the calls of an attached worker."""

    def finished(self, worker: Worker, call: int, outcome: Tensors | PacelineError) -> None:
        """A call has ended."""

    def streamed(self, worker: Worker, call: int, part: bytes) -> None:
        """A call goes on, and this is a part of its answer."""

    def died(self, worker: Worker, how: str) -> None:
        """It is gone, with the calls it had; those that it had answered before have been told of."""


class Worker:
    """A process, and the line to it.

    Args:
        command: of the process, given the descriptors to read from, to write to, and those of its codec.
        model: name for messages.

    Attributes:
        about, hello_s: what it has recognised, and how long that took; set by `hello`.
        readiness, ready_s: what it knew once initialised, and how long it took to get there; set by `setup`.
    """

    about: About
    hello_s: float
    readiness: Readiness
    ready_s: float

    def __init__(
        self,
        command: Callable[[int, int], Sequence[str]],
        codec: Codec,
        *,
        model: str,
        threads: int,
        descriptors: Sequence[int] = (),
        env: dict[str, str] | None = None,
        pipes: bool = False,
    ) -> None:
        self.model = model
        self.codec = codec
        self.threads = threads
        self.started = time.monotonic()
        ours, theirs = _pipes() if pipes else _sockets()
        self._channel = Channel(*ours)
        try:
            self._process = launch.start(command(*theirs), [*theirs, *descriptors], threads, env or {})
        except OSError as error:
            self._channel.close()
            codec.close()
            raise ModelLoadError(f"{model}: no worker can be started: {error}", model=model) from None
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: Listener | None = None
        self._why: str | None = None
        self._condemned = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    # -- while the caller waits -------------------------------------------------------------------------------

    def hello(self, timeout_s: float) -> About:
        """Wait until it has imported the code.

        Raises:
            ModelLoadError, RuntimeUnavailable: it cannot.
        """
        self.about = self._hear(Kind.HELLO, About, timeout_s, "importing the code")
        self.codec.one_call = self.about.lanes == 1
        self.hello_s = time.monotonic() - self.started
        return self.about

    def setup(self, wanted: Setup, timeout_s: float) -> Readiness:
        """Let it initialise, and wait until it has.

        Raises:
            ModelLoadError: it cannot.
        """
        try:
            self._channel.send(Kind.SETUP, 0, [frames.encode(wanted)])
        except Closed:
            raise self._gone("before it was initialised") from None
        began = time.monotonic()
        self.readiness = self._hear(Kind.READY, Readiness, timeout_s, "initialising")
        self.ready_s = self.hello_s + time.monotonic() - began
        return self.readiness

    def run(self, inputs: Tensors, timeout_s: float = 60.0) -> Tensors:
        """Run a batch and wait for it; only before `attach`.

        Raises:
            ModelFailed: the code raised.
            InstanceLost: the process died, or hung and was killed.
        """
        try:
            self._channel.send(Kind.RUN, 0, self.codec.encode(inputs))
            while True:
                frame = self._channel.receive(timeout_s)
                if frame.kind is not Kind.PART:
                    break
            outcome = self._outcome(frame)
        except Closed:
            raise InstanceLost(f"the worker died: {self._how_it_ended()}", model=self.model) from None
        except TimeoutError:
            self.kill()
            raise InstanceLost(f"a batch took longer than {timeout_s:g} s", model=self.model) from None
        except BadFrame as error:
            self.kill()
            raise InstanceLost(f"the worker broke the protocol: {error}", model=self.model) from None
        if isinstance(outcome, PacelineError):
            raise outcome
        return outcome

    # -- on an event loop -------------------------------------------------------------------------------------

    def attach(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        """From now on tell `listener`, on the loop."""
        self._loop, self._listener = loop, listener
        self._channel.attach(loop, self._came, self._hung_up)
        loop.add_reader(self._pidfd, self._ended)

    def start(self, call: int, inputs: Tensors) -> None:
        """Start a call; the listener is told of its end.

        Raises:
            PacelineError: the inputs cannot be sent.
        """
        self._channel.send(Kind.RUN, call, self.codec.encode(inputs))

    def cancel(self, call: int) -> None:
        """Nobody waits for a call any more."""
        self._channel.send(Kind.CANCEL, call)

    def hold(self, call: int, held: bool) -> None:
        """Make no more parts of an answer, or go on."""
        self._channel.send(Kind.PAUSE if held else Kind.RESUME, call)

    def stop(self) -> None:
        """Let it end; whoever listened is told nothing any more. Waits for it, unless attached."""
        self._listener = None
        self._channel.close()
        if self._loop is None:
            self.kill()
            launch.wait(self._process, _KILLED_S)
            self._let_go()
        elif not self._loop.is_closed():
            self._loop.call_later(_GRACE_S, self.kill)

    def kill(self) -> None:
        """End it at once. An attached worker's listener is told."""
        launch.kill(self._process)

    # -- what is it like? -------------------------------------------------------------------------------------

    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 when it is gone."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as statm:
                return int(statm.read().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError, ValueError):
            return 0

    def cpu_s(self) -> float:
        """Processor time of the process so far, in steps of 10 ms; 0.0 when it is gone."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
                return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
        except (OSError, IndexError, ValueError):
            return 0.0

    def is_stopped(self) -> bool:
        """True while it has been stopped by a signal (SIGSTOP) or a debugger."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as stat:
                return stat.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
        except (OSError, IndexError):
            return False

    # -- inside -----------------------------------------------------------------------------------------------

    def _hear(self, kind: Kind, document: type[_T], timeout_s: float, doing: str) -> _T:
        try:
            frame = self._channel.receive(timeout_s)
            if frame.kind is kind:
                return cast(_T, frames.decode(frame.body, document))
            if frame.kind is not Kind.FATAL:
                raise BadFrame(f"it said {frame.kind.name}")
            trouble: Trouble = frames.decode(frame.body, Trouble)
        except Closed:
            raise self._gone(f"while {doing}") from None
        except TimeoutError:
            text = f"{doing} took longer than {timeout_s:g} s"
            hint = "--setup-timeout-s allows more"
            raise ModelLoadError(f"{self.model}: {text}", hint=hint, model=self.model) from None
        except BadFrame as error:
            text = f"the worker broke the protocol while {doing}: {error}"
            raise ModelLoadError(f"{self.model}: {text}", model=self.model) from None
        raise _load_error(trouble, self.model)

    def _gone(self, when: str) -> ModelLoadError:
        return ModelLoadError(f"{self.model}: the worker died {when}: {self._how_it_ended()}", model=self.model)

    def _came(self, frame: Frame) -> None:
        listener = self._listener
        if listener is None:
            return
        if frame.kind is Kind.PART:
            listener.streamed(self, frame.call, bytes(frame.body))
        else:
            listener.finished(self, frame.call, self._outcome(frame))

    def _outcome(self, frame: Frame) -> Tensors | PacelineError:
        if frame.kind is Kind.RESULT:
            return self.codec.decode(frame.body)
        if frame.kind is Kind.FAILED:
            trouble: Trouble = frames.decode(frame.body, Trouble)
            return ModelFailed(
                trouble.message, code=trouble.code, detail=trouble.detail or None, hint=trouble.hint, model=self.model
            )
        raise BadFrame(f"{self.model}: the worker said {frame.kind.name} in the middle of a call")

    def _hung_up(self, why: str) -> None:
        """Nothing can be said to it any more, or nothing it says is to be trusted: it ends, or is ended."""
        assert self._loop is not None
        self._why = why
        self._loop.call_later(_DYING_S, self._condemn)

    def _condemn(self) -> None:
        if self._pidfd >= 0:
            assert self._loop is not None
            self._condemned = True
            self.kill()
            self._loop.call_later(_KILLED_S, self._tell_of_the_end)

    def _ended(self) -> None:
        if not launch.has_ended(self._process):
            return
        self._channel.read_rest()
        assert self._loop is not None
        self._loop.call_later(_ORPHANS_S, launch.reap_children_of, self._process)
        self._tell_of_the_end()
        self._let_go()

    def _tell_of_the_end(self) -> None:
        listener, self._listener = self._listener, None
        self._channel.close()
        if listener is not None:
            listener.died(self, self._how_it_ended())

    def _how_it_ended(self) -> str:
        """In words; what its process says of itself, unless it ended because we let go of it."""
        launch.wait(self._process, 0.0 if self._loop is not None else _KILLED_S)
        ended_by_us = self._condemned or (self._process.returncode == 0 and self._why != HUNG_UP)
        return self._why if self._why is not None and ended_by_us else launch.how_it_ended(self._process)

    def _let_go(self) -> None:
        if self._pidfd < 0:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._channel.close()
        self.codec.close()


def _load_error(trouble: Trouble, model: str) -> PacelineError:
    text = f"{trouble.message}\n{trouble.detail}".rstrip()
    if trouble.code == RuntimeUnavailable.code:
        return RuntimeUnavailable(text, hint=trouble.hint, model=model)
    kind = UnsafeModel if trouble.code == UnsafeModel.code else ModelLoadError
    return kind(text, hint=trouble.hint, model=model)


def _sockets() -> tuple[tuple[int, int], tuple[int, int]]:
    one, other = socket.socketpair()
    mine, theirs = one.detach(), other.detach()
    return (mine, mine), (theirs, theirs)


def _pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    from_us, to_us = os.pipe(), os.pipe()
    return (to_us[0], from_us[1]), (from_us[0], to_us[1])
