"""The worker process for Python code."""

from __future__ import annotations

import ctypes
import signal
import sys
import traceback
from pathlib import Path

import msgspec
import numpy as np

from paceline.workers import frames, tensors
from paceline.workers.channel import Channel, Closed
from paceline.workers.frames import About, Kind, Readiness, Setup, Trouble
from paceline.workers.python.arguments import Arguments


def main() -> None:
    """Serve until the channel closes."""
    # 1 is PR_SET_PDEATHSIG: end with the server, however it ends.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    arguments = msgspec.json.decode(sys.argv[1], type=Arguments)
    channel = Channel(arguments.reads, arguments.writes)
    incoming, outgoing = (tensors.Arena(descriptor) for descriptor in arguments.arenas)
    path = Path(arguments.path)
    sys.path.insert(0, str(path.parent))
    namespace: dict[str, object] = {"__name__": "service", "__file__": str(path)}
    try:
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        predict = namespace[arguments.name or "predict"]
    except Exception as error:
        trouble = Trouble(f"{path.name}: {error!r}", traceback.format_exc(), code="model_load_error")
        channel.send(Kind.FATAL, 0, [frames.encode(trouble)])
        return
    channel.send(Kind.HELLO, 0, [frames.encode(About(says=["function predict(batch)"]))])
    frames.decode(channel.receive().body, Setup)
    channel.send(Kind.READY, 0, [frames.encode(Readiness())])
    while True:
        frame = channel.receive()
        (items,), _ = tensors.decode(frame.body, incoming)
        try:
            outputs = predict([msgspec.json.decode(item) for item in items])  # type: ignore[operator]
            answer = np.empty(len(outputs), object)
            answer[:] = [msgspec.json.encode(output) for output in outputs]
            channel.send(Kind.RESULT, frame.call, tensors.encode([answer], outgoing))
        except Exception as error:
            channel.send(Kind.FAILED, frame.call, [frames.encode(Trouble(repr(error), traceback.format_exc()))])


if __name__ == "__main__":
    try:
        main()
    except Closed:
        sys.exit(0)
