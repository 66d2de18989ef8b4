"""The supervisor: which process serves which slot, and what happens when one comes, dies or is replaced?

Rules:
- The listening sockets are the supervisor's; a slot has one for each address, and every process has them all. What
  waits in a socket's queue outlives the process that accepted from it: nobody is turned away while processes change.
- At the first start all processes accept at once (alive, and not ready until all are). Later ones accept when they are
  ready; until then another process accepts from the slot of one that died.
- A process that fails before all have been ready for the first time ends the whole with its exit code. One that dies
  later is replaced, sooner or later (`Backoff`).
- A restart replaces slot by slot: the old process is told to go when the new one accepts. If a new one does not become
  ready, the rest is left as it is.
- Every process ends when its control socket does, so none outlives its supervisor.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from paceline.config.machine import usable_cores
from paceline.config.settings import ServeSettings
from paceline.supervisor import control
from paceline.supervisor.addresses import bound_sockets
from paceline.supervisor.backoff import Backoff
from paceline.supervisor.lines import Document, Lines
from paceline.supervisor.merging import Families, merged, of_the_past
from paceline.supervisor.questions import Questions
from paceline.supervisor.replica import Replica

_NEVER: Final = float("inf")
# Beyond the grace time: what a process needs to notice that it is over.
_SPARE_S: Final = 5.0


def supervise(command: Sequence[str], settings: ServeSettings) -> int:
    """Run `settings.replicas` processes until a signal says stop; the exit code.

    Args:
        command: the arguments of the command line, with which each process is started, too.

    Raises:
        AddressUnavailable: the port is taken or not permitted.
    """
    return Supervisor(command, settings).run()


@dataclass
class _Slot:
    number: int
    current: Replica | None = None
    successor: Replica | None = None  # of a restart, until it is ready
    adopted_by: Replica | None = None
    start_at: float = _NEVER
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """See `supervise`."""

    def __init__(self, command: Sequence[str], settings: ServeSettings) -> None:
        self._command = list(command)
        self._settings = settings
        count = settings.replicas or 1
        self._slots = [_Slot(number) for number in range(count)]
        self._sockets = bound_sockets(settings.host, settings.port, count)
        if settings.grpc_port is not None:
            more = bound_sockets(settings.host, settings.grpc_port, count, "--grpc-port")
            for sockets, others in zip(self._sockets, more, strict=True):
                sockets += others
        self._leaving: set[Replica] = set()
        self._questions = Questions()
        self._selector = selectors.DefaultSelector()
        self._began = False
        self._exit_code: int | None = None  # set once the end has begun
        self._interrupts = 0
        self._end_at = self._close_at = _NEVER
        self._restarts = [0] * count
        self._past: Families = []
        self._rolling: list[_Slot] = []
        self._rolled = 0
        self._asking: list[Lines] = []
        self._heard_signals: list[int] = []
        if count > usable_cores().whole:
            _say(f"{count} replicas share {usable_cores().whole} cores ({usable_cores().why}): fewer would be faster")

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """See `supervise`."""
        path = self._open_control()
        try:
            self._watch_signals()
            for slot in self._slots:
                self._start(slot)
            while self._exit_code is None or self._alive():
                for key, _ in self._selector.select(self._patience_s()):
                    callback: Callable[[], None] = key.data
                    callback()
                self._reap()
                self._on_time(time.monotonic())
            return self._exit_code
        finally:
            for replica in self._alive():
                replica.process.kill()
                replica.process.wait()
            if path is not None:
                path.unlink(missing_ok=True)

    def _patience_s(self) -> float | None:
        moments = [slot.start_at for slot in self._slots]
        nearest = min([*moments, self._end_at, self._close_at, self._questions.next_deadline()])
        return None if nearest == _NEVER else max(0.0, nearest - time.monotonic())

    def _on_time(self, now: float) -> None:
        self._questions.expire(now)
        for slot in self._slots:
            if slot.start_at <= now and self._exit_code is None:
                self._start(slot)
        if self._close_at <= now:
            self._close_at = _NEVER
            for sockets in self._sockets:
                for sock in sockets:
                    sock.close()
        if self._end_at <= now:
            self._end_at = _NEVER
            for replica in self._alive():
                replica.process.kill()

    def _alive(self) -> list[Replica]:
        of_slots = [replica for slot in self._slots for replica in (slot.current, slot.successor) if replica]
        return [*of_slots, *self._leaving]

    def _serving(self) -> list[Replica]:
        return [slot.current for slot in self._slots if slot.current is not None]

    # -- processes --------------------------------------------------------------------------------------------

    def _start(self, slot: _Slot) -> Replica:
        slot.start_at = _NEVER
        replica = Replica(slot.number, self._command, self._sockets, first=not self._began)
        if slot.current is None:
            slot.current = replica
        else:
            slot.successor = replica
        self._selector.register(replica.lines, selectors.EVENT_READ, lambda: self._hear(replica))
        return replica

    def _hear(self, replica: Replica) -> None:
        documents = replica.lines.receive()
        if documents is None:
            self._deaf(replica)
            return
        for document in documents:
            self._on_word(replica, document)

    def _deaf(self, replica: Replica) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(replica.lines)
        if not replica.is_leaving:
            replica.end()

    def _on_word(self, replica: Replica, document: Document) -> None:
        what = document.get("say")
        if what == "ready":
            replica.is_ready = True
            self._on_ready(replica)
        elif what == "problem":
            replica.problem = document
            if replica is self._slots[replica.slot].successor:
                replica.process.terminate()
        elif what == "ask":
            others = [each for each in self._serving() if each is not replica and (each.is_ready or not self._began)]
            state = {"restarts": self._restarts, "past": self._past} if document["topic"] == "metrics" else {}
            self._questions.ask(replica, document, others, state)
        elif what == "answer":
            self._questions.answered(replica, document)
        elif what == "totals":
            self._past = merged([self._past, of_the_past(document["families"])])

    def _on_ready(self, replica: Replica) -> None:
        slot = self._slots[replica.slot]
        if not self._began:
            if all(each.current is not None and each.current.is_ready for each in self._slots):
                self._began = True
                for each in self._serving():
                    each.tell("go")
            return
        replica.tell("go")
        if slot.adopted_by is not None:
            slot.adopted_by.tell("release", slot=slot.number)
            slot.adopted_by = None
        if replica is slot.successor:
            old, slot.current, slot.successor = slot.current, replica, None
            if old is not None:
                self._leaving.add(old)
                old.leave("retire")
        if self._rolling and self._rolling[0] is slot:
            self._replaced(replica)

    def _reap(self) -> None:
        for replica in self._alive():
            if replica.process.poll() is not None:
                self._hear_out(replica)
                self._on_exit(replica)

    def _hear_out(self, replica: Replica) -> None:
        """Take its last words."""
        while documents := replica.lines.receive():
            for document in documents:
                self._on_word(replica, document)
        self._deaf(replica)
        replica.lines.close()

    def _on_exit(self, replica: Replica) -> None:
        self._questions.forget(replica)
        slot = self._slots[replica.slot]
        for other in self._slots:
            if other.adopted_by is replica:
                other.adopted_by = None
                self._adopt(other)
        if replica in self._leaving:
            self._leaving.discard(replica)
            self._tell_left()
        elif replica is slot.successor:
            slot.successor = None
            self._restart_failed(replica)
        else:
            slot.current = None
            if self._exit_code is None:
                self._on_death(slot, replica)

    def _on_death(self, slot: _Slot, replica: Replica) -> None:
        code = replica.process.returncode
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        if not self._began:
            if not replica.problem:
                _say(f"replica {slot.number} died before it was ready: {how}")
            elif self._exit_code is None:
                self._explain(replica)
            self._end(code if code > 0 else 1)
            return
        how = replica.problem.get("text", how)
        wait_s = slot.backoff.next_s(replica.lived_s)
        _say(f"replica {slot.number} (process {replica.process.pid}) died: {how}; a new one starts {_in(wait_s)}")
        self._restarts[slot.number] += 1
        if slot.successor is not None:  # of a restart: it was to come anyway
            slot.current, slot.successor = slot.successor, None
            self._adopt(slot)
            return
        if self._rolling and self._rolling[0] is slot:
            self._restart_failed(replica)
        slot.start_at = time.monotonic() + wait_s
        self._adopt(slot)

    def _explain(self, replica: Replica) -> None:
        sys.stderr.write(f"error: {replica.problem['text']}\n")
        if replica.problem.get("hint"):
            sys.stderr.write(f"hint: {replica.problem['hint']}\n")

    def _adopt(self, slot: _Slot) -> None:
        """Let a neighbour accept what comes to this slot."""
        for neighbour in self._serving():
            if neighbour.is_ready and neighbour.slot != slot.number:
                neighbour.tell("adopt", slot=slot.number)
                slot.adopted_by = neighbour
                return

    # -- restart ----------------------------------------------------------------------------------------------

    def _restart(self, asker: Lines | None) -> None:
        if self._rolling or self._leaving or not self._began or self._exit_code is not None:
            why = "a restart is under way" if self._began else "the server is not ready yet"
            if asker is not None:
                asker.send({"ok": False, "text": why})
            else:
                _say(f"SIGHUP ignored: {why}")
            return
        if asker is not None:
            self._asking.append(asker)
        self._rolled = 0
        self._rolling = list(self._slots)
        self._replace_next()

    def _replace_next(self) -> None:
        slot = self._rolling[0]
        slot.start_at = _NEVER
        self._start(slot)

    def _replaced(self, replica: Replica) -> None:
        self._rolled += 1
        self._tell(f"replica {replica.slot}: process {replica.process.pid} is ready after {replica.lived_s:.2f} s")
        self._rolling.pop(0)
        if self._rolling:
            self._replace_next()
        self._tell_left()

    def _tell_left(self) -> None:
        if not self._rolling and not self._leaving and self._asking:
            self._tell(f"{self._rolled} of {len(self._slots)} replicas replaced", ok=True, replicas=self._rolled)

    def _restart_failed(self, replica: Replica) -> None:
        self._rolling.clear()
        why = replica.problem.get("text") or f"exit code {replica.process.returncode}"
        text = f"replica {replica.slot}: the new process did not become ready: {why}; the old one serves on"
        self._tell(text, ok=False, hint=replica.problem.get("hint"))

    def _tell(self, text: str, **more: Any) -> None:
        """Say it in the log, and to who asked for a restart."""
        _say(text)
        for asker in self._asking:
            asker.send({"text": text, **more})
        if "ok" in more:
            self._asking.clear()  # they hang up

    # -- control and signals ----------------------------------------------------------------------------------

    def _open_control(self) -> Path | None:
        port = self._sockets[0][0].getsockname()[1]
        try:
            sock, path = control.listen(port)
        except (OSError, control.RestartFailed) as error:
            _say(f"`paceline restart` will not find this server, SIGHUP will: {error}")
            return None
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._accept_control(sock))
        return path

    def _accept_control(self, sock: socket.socket) -> None:
        client, _ = sock.accept()
        lines = Lines(client)
        self._selector.register(lines, selectors.EVENT_READ, lambda: self._hear_control(lines))

    def _hear_control(self, lines: Lines) -> None:
        documents = lines.receive()
        if documents is None:
            self._selector.unregister(lines)
            if lines in self._asking:
                self._asking.remove(lines)
            lines.close()
            return
        for document in documents:
            if document.get("do") == "restart":
                self._restart(lines)

    def _watch_signals(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wakers = (ours, theirs)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda heard, _: self._heard_signals.append(heard))
        self._selector.register(ours, selectors.EVENT_READ, self._on_signals)

    def _on_signals(self) -> None:
        with suppress(BlockingIOError):
            self._wakers[0].recv(4096)
        heard, self._heard_signals = self._heard_signals, []
        for number in heard:
            if number == signal.SIGHUP:
                self._restart(None)
            elif number == signal.SIGINT:
                self._interrupts += 1
                if self._interrupts > 1:
                    self._kill_all()
                self._end(0)
            elif number == signal.SIGTERM:
                self._end(0)

    def _kill_all(self) -> None:
        for replica in self._alive():
            replica.process.kill()
        os._exit(130)

    def _end(self, code: int) -> None:
        """Let all processes finish what they have begun."""
        if self._exit_code is not None:
            return
        self._exit_code = code
        self._rolling.clear()
        now, lame_duck_s = time.monotonic(), self._settings.lame_duck_ms / 1000
        self._close_at = now + lame_duck_s
        self._end_at = now + lame_duck_s + self._settings.grace_ms / 1000 + _SPARE_S
        for replica in self._alive():
            replica.leave("stop")


def _in(seconds: float) -> str:
    return f"in {seconds:g} s" if seconds else "now"


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"paceline: {text}\n")
        sys.stderr.flush()
