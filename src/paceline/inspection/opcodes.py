"""What would a pickle do? Its program is followed with stand-ins for objects, and nothing of it is done.

Rules:
- A name is known as the interpreter would know it: from the stack, the memo and the instructions, not from what the
  text looks like. A name that is only made while loading counts as dangerous.
- Everything is bounded: instructions, and what is kept of long lists, dicts and strings.
- joblib writes arrays as raw bytes between the instructions; they are stepped over by the size that is told.

Source: the instructions are those of `pickletools`; the layout of joblib's arrays is `joblib.numpy_pickle`.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

from paceline.inspection.standins import (
    MOST_KEPT,
    MOST_NESTED,
    Broken,
    Made,
    Many,
    Name,
    elements,
    has_objects,
    item_bytes,
    may_be_text,
)
from paceline.inspection.streams import Stream

_MOST_INSTRUCTIONS: Final = 10_000_000
_MOST_TEXT: Final = 1024


@dataclass(slots=True)
class Program:
    """What one pickle, and those inside it, would do.

    Attributes:
        names: every name that is looked up, and whether it is called.
        made: how many objects of each class or function.
        hidden: names that are only made while loading, and objects that are called though no name for them is known.
        arrays: of joblib's, whose bytes were stepped over.
        numbers: elements of PyTorch's tensors, as often as they are rebuilt.
        result: the object that comes out.
    """

    names: dict[tuple[str, str], bool] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    instructions: int = 0
    arrays: int = 0
    protocol: int = 0
    numbers: int = 0
    result: Any = None


_MARK: Final = object()
_OTHER: Final = object()


class _Machine:
    """Follows one pickle."""

    def __init__(self, stream: Stream, program: Program, depth: int, step_over: bool) -> None:
        self._stream = stream
        self._program = program
        self._depth = depth
        self._step_over = step_over
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._protocol = 0

    def run(self) -> Any:
        """The stand-in for what comes out."""
        program = self._program
        for code, argument, _ in pickletools.genops(self._stream):  # type: ignore[arg-type]
            program.instructions += 1
            if program.instructions > _MOST_INSTRUCTIONS:
                raise Broken(f"it has more than {_MOST_INSTRUCTIONS} instructions")
            act = _ACTIONS.get(code.name)
            if act is None:
                self._stack.append(_kept(argument) if argument is not None else _CONSTANTS.get(code.name, _OTHER))
            else:
                act(self, argument)
        return self._pop()

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise Broken("it takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise Broken("it looks at an empty stack")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while self._stack:
            item = self._stack.pop()
            if item is _MARK:
                return items[::-1]
            items.append(item)
        raise Broken("a mark is missing")

    def _push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            if not all(may_be_text(each) for each in (module, name)):
                raise Broken("a name that is no text")  # as every reader says
            self._hidden("a name that is only made while it is loaded")
            self._stack.append(_OTHER)
            return
        if self._protocol < 3:
            module, name = _of_python_3(module, name)
        self._program.names.setdefault((module, name), False)
        self._stack.append(Name(module, name))

    def _hidden(self, what: str) -> None:
        if what not in self._program.hidden:
            self._program.hidden.append(what)

    def _call(self, of: Any, args: Any) -> None:
        made = self._program.made
        # copyreg's helpers make an object of the class that they are given.
        first = args[0] if isinstance(args, tuple) and args else None
        if isinstance(of, Name) and of.module == "copyreg" and isinstance(first, Name):
            self._called(of)
            of = first
        if isinstance(of, Name):
            self._called(of)
            made[str(of)] = made.get(str(of), 0) + 1
            if of.name.startswith("_rebuild_tensor"):
                self._program.numbers += elements(args)
        elif isinstance(of, Made) or of is _OTHER:
            self._hidden("a call of something that is no name")
        else:
            raise Broken("a call of what cannot be called")
        self._stack.append(Made(of, args))

    def _called(self, name: Name) -> None:
        self._program.names[name.module, name.name] = True

    # One method for each kind of instruction.

    def nothing(self, _: Any) -> None:
        pass

    def proto(self, argument: Any) -> None:
        self._protocol = int(argument)
        self._program.protocol = max(self._program.protocol, self._protocol)

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def pop(self, _: Any) -> None:
        if self._stack and self._stack[-1] is _MARK:
            self._stack.pop()
        else:
            self._pop()

    def pop_mark(self, _: Any) -> None:
        self._since_mark()

    def dup(self, _: Any) -> None:
        self._stack.append(self._top())

    def collection(self, _: Any) -> None:
        self._stack.append(Many())

    def collect(self, _: Any) -> None:
        many = Many()
        many.add(self._since_mark())
        self._stack.append(many)

    def collect_dict(self, _: Any) -> None:
        many = Many()
        many.put(self._since_mark())
        self._stack.append(many)

    def empty_tuple(self, _: Any) -> None:
        self._stack.append(())

    def tuple_(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()[:MOST_KEPT]))

    def tuple_of(self, count: int) -> None:
        self._stack.append(tuple([self._pop() for _ in range(count)][::-1]))

    def append(self, _: Any) -> None:
        item = self._pop()
        self._extend([item])

    def appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(target := self._top(), Many):
            target.add(items)

    def setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._put([key, value])

    def setitems(self, _: Any) -> None:
        self._put(self._since_mark())

    def _put(self, pairs: list[Any]) -> None:
        if isinstance(target := self._top(), Many):
            target.put(pairs)

    def put(self, argument: Any) -> None:
        self._memo[int(argument)] = self._top()

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def get(self, argument: Any) -> None:
        if int(argument) not in self._memo:
            raise Broken("it takes from an empty place of the memo")
        self._stack.append(self._memo[int(argument)])

    def global_(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._push_name(module, name)

    def stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push_name(module, name)

    def inst(self, argument: Any) -> None:
        args = tuple(self._since_mark())
        self.global_(argument)
        self._call(self._pop(), args)

    def obj(self, _: Any) -> None:
        items = self._since_mark()
        if not items:
            raise Broken("it makes an object of nothing")
        self._call(items[0], tuple(items[1:]))

    def reduce(self, _: Any) -> None:
        args, of = self._pop(), self._pop()
        self._call(of, args)

    def newobj_ex(self, _: Any) -> None:
        self._pop()
        self.reduce(None)

    def build(self, _: Any) -> None:
        state, made = self._pop(), self._top()
        if not isinstance(made, Made):
            return
        made.state = state
        if self._step_over and str(made.of) == "joblib.numpy_pickle.NumpyArrayWrapper":
            self._program.arrays += 1
            self._step_over_array(made, state)

    def extension(self, _: Any) -> None:
        self._hidden("an extension code, whose meaning the reader's own registry decides")
        self._stack.append(_OTHER)

    def persistent(self, _: Any) -> None:
        self._stack.append(_OTHER)

    def binary_persistent(self, _: Any) -> None:
        self._pop()
        self._stack.append(_OTHER)

    def _step_over_array(self, made: Made, state: Any) -> None:
        told = state.by_key if isinstance(state, Many) else {}
        shape, dtype = told.get("shape"), told.get("dtype")
        if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise Broken("an array of joblib's has no readable shape")
        if has_objects(dtype, 0):
            objects = _follow(self._stream, self._program, self._depth + 1, True)
            made.state = objects.state if isinstance(objects, Made) else None
            return
        if isinstance(told.get("numpy_array_alignment_bytes"), int):
            self._stream.skip(int.from_bytes(self._stream.read(1), "little"))
        size_bytes = prod(shape) * item_bytes(dtype)
        if self._stream.skip(size_bytes) < size_bytes:
            raise Broken("the file ends in an array")


_ACTIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    **dict.fromkeys(("FRAME", "STOP", "READONLY_BUFFER"), _Machine.nothing),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET", "EMPTY_DICT"), _Machine.collection),
    **dict.fromkeys(("LIST", "FROZENSET"), _Machine.collect),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _Machine.appends),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.reduce),
    "PROTO": _Machine.proto, "MARK": _Machine.mark, "POP": _Machine.pop, "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.dup, "DICT": _Machine.collect_dict, "EMPTY_TUPLE": _Machine.empty_tuple, "TUPLE": _Machine.tuple_,
    "TUPLE1": lambda machine, _: machine.tuple_of(1), "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3), "APPEND": _Machine.append, "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems, "MEMOIZE": _Machine.memoize, "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global, "INST": _Machine.inst, "OBJ": _Machine.obj,
    "NEWOBJ_EX": _Machine.newobj_ex, "BUILD": _Machine.build, "PERSID": _Machine.persistent,
    "BINPERSID": _Machine.binary_persistent,
}  # fmt: skip
"""By instruction; the others push their argument, or a constant."""

_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def follow(stream: Stream, program: Program, *, step_over: bool = True) -> Program:
    """Follow the next pickle of a stream.

    Args:
        step_over: the bytes of joblib's arrays, as joblib does; what is no joblib takes them for instructions.

    Raises:
        Broken: it cannot be followed to its end; the program has what was found until there.
    """
    program.result = _follow(stream, program, 0, step_over)
    return program


def _follow(stream: Stream, program: Program, depth: int, step_over: bool) -> Any:
    """The stand-in for what comes out of a pickle, inside of others or not."""
    if depth > MOST_NESTED:
        raise Broken(f"pickles inside of pickles, more than {MOST_NESTED} deep")
    try:
        return _Machine(stream, program, depth, step_over).run()
    except (ValueError, TypeError, UnicodeDecodeError, IndexError, OverflowError, MemoryError) as error:
        raise Broken(str(error) or type(error).__name__) from error


def _of_python_3(module: str, name: str) -> tuple[str, str]:
    """What a name of Python 2 is called now: old protocols have those, and every reader turns them into ours."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


def _kept(argument: Any) -> Any:
    if isinstance(argument, str):
        return argument if len(argument) <= _MOST_TEXT else _OTHER
    return _OTHER if isinstance(argument, bytes | bytearray) else argument
