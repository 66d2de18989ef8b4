"""What becomes R: a process that first asks to end with the server, and goes to the folder of the script.

Rules:
- It runs as a plain file with nothing but the standard library, so that it costs milliseconds.
- R itself has no such call, and the ready-made command (`setpriv`) is not on every system.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(folder: str, command: list[str]) -> None:
    """Become `command` in `folder`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(folder)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
