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
- Every process ends when its control socket does, so none outlives its supervisor. One that is to be ready or gone by
  a moment, and is not, is killed.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, Final

from paceline.config.machine import usable_cores
from paceline.config.settings import ServeSettings
from paceline.supervisor.addresses import bound_sockets
from paceline.supervisor.clients import Clients
from paceline.supervisor.control import RestartFailed
from paceline.supervisor.lines import Document, Lines
from paceline.supervisor.merging import METRICS, Families, merged
from paceline.supervisor.questions import Questions
from paceline.supervisor.replica import Replica
from paceline.supervisor.signals import Signals
from paceline.supervisor.slots import NEVER, Slot, Slots
from paceline.supervisor.watch import Watch

# For a restart that nobody waits for.
_RESTART_S: Final = 300.0


def supervise(command: Sequence[str], settings: ServeSettings) -> int:
    """Run `settings.replicas` processes until a signal says stop; the exit code.

    Args:
        command: this process's own command line, with which each replica is started, too.

    Raises:
        AddressUnavailable: the port is taken or not permitted.
    """
    return Supervisor(command, settings).run()


class Supervisor:
    """See `supervise`."""

    def __init__(self, command: Sequence[str], settings: ServeSettings) -> None:
        self._command = list(command)
        self._settings = settings
        count = settings.replicas or 1
        self._slots = Slots(count)
        self._sockets = bound_sockets(settings.host, settings.port, count)
        if settings.grpc_port is not None:
            more = bound_sockets(settings.host, settings.grpc_port, count, "--grpc-port")
            for sockets, others in zip(self._sockets, more, strict=True):
                sockets += others
        self._questions = Questions()
        self._watch = Watch()
        self._clients: Clients | None = None
        self._began = False
        self._exit_code: int | None = None  # set once the end has begun
        self._interrupts = 0
        self._close_at = NEVER
        self._past: Families = []
        self._rolling: list[Slot] = []
        self._rolled = 0
        self._roll_until = NEVER
        if count > usable_cores().whole:
            _say(f"{count} replicas share {usable_cores().whole} cores ({usable_cores().why}): fewer would be faster")

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """See `supervise`."""
        self._open_control()
        try:
            heard = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD))
            self._watch.add(heard, lambda: self._on_signals(heard))
            for slot in self._slots:
                if self._exit_code is None:
                    self._start(slot)
            while self._exit_code is None or self._slots.alive:
                self._watch.wait(self._patience_s())
                self._reap()
                self._on_time(time.monotonic())
            return self._exit_code
        finally:
            for replica in self._slots.alive:
                replica.process.kill()
                replica.process.wait()
            self._close_ports()

    def _patience_s(self) -> float | None:
        nearest = min(self._slots.next_moment, self._close_at, self._questions.next_deadline())
        return None if nearest == NEVER else max(0.0, nearest - time.monotonic())

    def _on_time(self, now: float) -> None:
        self._questions.expire(now)
        for slot in self._slots:
            if slot.start_at <= now and self._exit_code is None:
                self._start(slot)
        if self._close_at <= now:
            self._close_ports()
        for replica in self._slots.alive:
            if replica.until <= now:
                replica.give_up()

    def _close_ports(self) -> None:
        self._close_at = NEVER
        if self._clients is not None:
            self._clients.close()
        for sockets in self._sockets:
            for sock in sockets:
                sock.close()

    # -- processes --------------------------------------------------------------------------------------------

    def _start(self, slot: Slot, until: float = NEVER) -> None:
        """Start a process for a slot; beside the one that it has, if it has one."""
        slot.start_at = NEVER
        try:
            replica = Replica(slot.number, self._command, self._sockets, first=not self._began)
        except OSError as error:  # no process, file or memory left; or Python is not where it was
            self._on_no_start(slot, f"cannot start a process: {error}")
            return
        replica.until = until
        replica.expect_to_drain(self._settings.lame_duck_ms / 1000, self._settings.grace_ms / 1000)
        if slot.current is None:
            slot.current = replica
        else:
            slot.successor = replica
        self._watch.add(replica.lines, lambda: self._hear(replica))

    def _on_no_start(self, slot: Slot, why: str) -> None:
        if not self._began:
            _say(f"replica {slot.number}: {why}")
            self._end(1)
            return
        if self._rolling and self._rolling[0] is slot:
            self._restart_failed(slot, why)
        if slot.current is None:
            wait_s = slot.backoff.next_s(0.0)
            _say(f"replica {slot.number}: {why}; tried again {_in(wait_s)}")
            slot.start_at = time.monotonic() + wait_s

    def _hear(self, replica: Replica) -> None:
        documents = replica.lines.receive()
        if documents is None:
            self._deaf(replica)
            return
        for document in documents:
            self._on_word(replica, document)

    def _deaf(self, replica: Replica) -> None:
        self._watch.remove(replica.lines)
        if not replica.is_leaving:
            replica.end()

    def _on_word(self, replica: Replica, document: Document) -> None:
        what = document.get("say")
        if "counted" in document:
            replica.counted = document["counted"]
        if what == "ready" and replica.process.returncode is None:
            replica.is_ready, replica.until = True, NEVER
            replica.expect_to_drain(document["lame_duck_s"], document["grace_s"])
            self._on_ready(replica)
        elif what == "problem":
            replica.problem = document
            if not document["fatal"]:
                self._on_problem(replica)
        elif what == "draining":
            replica.is_ready = False
            self._cover()
        elif what == "ask":
            self._ask(replica, document)
        elif what == "answer":
            self._questions.answered(replica, document)

    def _ask(self, asker: Replica, document: Document) -> None:
        asked = {each for each in self._slots.serving if each.is_ready or not self._began}
        if document["leaving"]:
            asked |= self._slots.leaving
        state = self._state if document["topic"] == METRICS else lambda _: {}
        self._questions.ask(asker, document, asked - {asker}, self._slots.leaving, state)

    def _state(self, heard: Collection[Replica]) -> Document:
        """What the supervisor adds to metrics: among it what those have counted who have not answered."""
        silent = [replica.counted for replica in self._slots.alive if replica not in heard and replica.counted]
        return {
            "restarts": [slot.deaths for slot in self._slots],
            "past": merged([self._past, *silent]) if silent else self._past,
        }

    def _on_ready(self, replica: Replica) -> None:
        if self._began:
            self._take_part(replica)
        else:
            self._begin_if_settled()

    def _begin_if_settled(self) -> None:
        """The start is over when every replica is ready, or has said why it is not."""
        first = self._slots.serving
        if len(first) == len(self._slots) and all(each.is_ready or each.problem for each in first):
            self._began = True
            for each in first:
                each.tell("go")
            self._cover()

    def _take_part(self, replica: Replica) -> None:
        slot = self._slots.of(replica)
        replica.tell("go")
        self._slots.release(slot)
        if replica is slot.successor:
            self._slots.retire(slot)
        if self._rolling and self._rolling[0] is slot and slot.successor is None:
            self._replaced(replica)
        elif replica.is_ready:
            _say(f"replica {replica.slot}: process {replica.process.pid} is ready after {replica.lived_s:.2f} s")
        self._cover()

    def _on_problem(self, replica: Replica) -> None:
        """It lives, and is not ready: it goes, unless nobody could answer in its place."""
        if not self._began:
            self._begin_if_settled()
        elif any(other.is_ready for other in self._slots.serving):
            replica.process.terminate()
        else:
            _say(f"replica {replica.slot} (process {replica.process.pid}) is not ready: {replica.problem['text']}")
            self._take_part(replica)

    def _reap(self) -> None:
        for replica in self._slots.alive:
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
        self._past, replica.counted = merged([self._past, replica.counted]), []
        self._questions.forget(replica)
        self._slots.disown(replica)
        slot = self._slots.of(replica)
        if replica in self._slots.leaving:
            self._slots.leaving.discard(replica)
            self._tell_left()
        elif replica is slot.successor:
            slot.successor = None
            if self._rolling and self._rolling[0] is slot:
                self._restart_failed(slot, replica.why, replica.problem.get("hint"))
        else:
            slot.current = None
            if self._exit_code is None:
                self._on_death(slot, replica)
        self._cover()

    def _on_death(self, slot: Slot, replica: Replica) -> None:
        code, why = replica.process.returncode, replica.why
        if not self._began:
            if not replica.problem:
                _say(f"replica {slot.number} died before it was ready: {why}")
            elif self._exit_code is None:
                self._explain(replica)
            self._end(code if code > 0 else 1)
            return
        wait_s = slot.backoff.next_s(replica.lived_s)
        _say(f"replica {slot.number} (process {replica.process.pid}) died: {why}; a new one starts {_in(wait_s)}")
        slot.deaths += 1
        if slot.successor is not None:  # of a restart: it was to come anyway
            slot.current, slot.successor = slot.successor, None
            return
        if self._rolling and self._rolling[0] is slot:
            self._restart_failed(slot, why, replica.problem.get("hint"))
        slot.start_at = time.monotonic() + wait_s

    def _explain(self, replica: Replica) -> None:
        sys.stderr.write(f"error: {replica.problem['text']}\n")
        if replica.problem.get("hint"):
            sys.stderr.write(f"hint: {replica.problem['hint']}\n")

    def _cover(self) -> None:
        if self._began and self._exit_code is None:
            self._slots.cover()

    # -- restart ----------------------------------------------------------------------------------------------

    def _restart(self, asker: Lines | None, timeout_s: float) -> None:
        if self._rolling or self._slots.leaving or not self._began or self._exit_code is not None:
            why = "a restart is under way" if self._began else "the server is not ready yet"
            if asker is not None:
                asker.send({"ok": False, "text": why})
            else:
                _say(f"SIGHUP ignored: {why}")
            return
        if asker is not None and self._clients is not None:
            self._clients.wait(asker)
        self._rolled = 0
        self._roll_until = time.monotonic() + timeout_s
        self._rolling = list(self._slots)
        self._replace_next()

    def _replace_next(self) -> None:
        self._start(self._rolling[0], self._roll_until)

    def _replaced(self, replica: Replica) -> None:
        self._rolled += 1
        self._tell(f"replica {replica.slot}: process {replica.process.pid} is ready after {replica.lived_s:.2f} s")
        self._rolling.pop(0)
        if self._rolling:
            self._replace_next()
        self._tell_left()

    def _tell_left(self) -> None:
        if self._rolled == len(self._slots) and not self._slots.leaving:
            self._tell(f"{self._rolled} of {len(self._slots)} replicas replaced", ok=True, replicas=self._rolled)
            self._rolled = 0

    def _restart_failed(self, slot: Slot, why: str, hint: str | None = None) -> None:
        self._rolling.clear()
        rest = "the old one serves on" if slot.current is not None else "another one is tried"
        self._tell(f"replica {slot.number}: the new process did not become ready: {why}; {rest}", ok=False, hint=hint)

    def _tell(self, text: str, **more: Any) -> None:
        """Say it in the log, and to who asked for a restart."""
        _say(text)
        if self._clients is not None:
            self._clients.tell(text, **more)

    # -- clients and signals ----------------------------------------------------------------------------------

    def _open_control(self) -> None:
        try:
            self._clients = Clients(self._sockets[0][0].getsockname()[1], self._watch, self._on_request)
        except (OSError, RestartFailed) as error:
            _say(f"`paceline restart` will not find this server, SIGHUP will: {error}")

    def _on_request(self, client: Lines, document: Document) -> None:
        if document.get("do") == "restart":
            timeout_s = document.get("timeout_s")
            if not isinstance(timeout_s, float) or not math.isfinite(timeout_s):
                timeout_s = _RESTART_S
            self._restart(client, timeout_s)
        else:
            client.send({"ok": False, "text": "expected a request to restart"})

    def _on_signals(self, heard: Signals) -> None:
        for number in heard.take():
            if number == signal.SIGHUP:
                self._restart(None, _RESTART_S)
            elif number == signal.SIGINT:
                self._interrupts += 1
                self._end(0)
                if self._interrupts > 1:
                    self._kill_all()
            elif number == signal.SIGTERM:
                self._end(0)

    def _kill_all(self) -> None:
        self._exit_code = 130
        for replica in self._slots.alive:
            replica.process.kill()

    def _end(self, code: int) -> None:
        """Let all processes finish what they have begun."""
        if self._exit_code is not None:
            return
        self._exit_code = code
        if self._rolling:
            self._tell("the server ends", ok=False)
        self._rolling.clear()
        for slot in self._slots:
            slot.start_at = NEVER
        self._close_at = time.monotonic() + self._settings.lame_duck_ms / 1000
        for replica in self._slots.alive:
            replica.leave("stop")


def _in(seconds: float) -> str:
    return f"in {seconds:g} s" if seconds else "now"


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"paceline: {text}\n")
        sys.stderr.flush()
