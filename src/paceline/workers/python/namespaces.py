"""How do several modules live in one interpreter without meeting?

Rules:
- Each module of a pipeline has a view of its own: its `sys.path`, its working directory, and its copies of the modules
  that it imports from its own folders (its script's, its bundle's). Two that `import helper` get each its own.
- What is installed is shared, and imported once; but a module that stands before it on a path is that view's own, as in
  an interpreter that knows nothing else.
- A view is in force while its module is imported or called, on the one thread that does so. What a thread of the
  module's own imports later finds the view in force at that time.
- Where all modules share one namespace, a name that two of them bind to different things is an error, and named. So is
  one that both bind and a function rebinds (`global`): the later call would be seen by the other module.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

from paceline.core.errors import ModelLoadError
from paceline.workers.python.loading import importable_name

_SIMPLE: Final = (int, float, str, bytes, bool, type(None))
_MOST_NAMED: Final = 5
_OF_THE_HOST: Final = frozenset(sys.modules)


class View:
    """What one module sees of the interpreter.

    Args:
        folders: where its own files are, the first one first.
        working: its working directory.
        variables: of its environment.
    """

    def __init__(
        self, folders: Sequence[Path], working: Path, variables: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._folders = [str(folder.resolve()) for folder in folders]
        self._working = working
        self._variables = variables
        self._path = [*self._folders, *[each for each in sys.path if each not in self._folders]]
        self._shared_path = [each for each in sys.path if each and each not in self._folders]
        self._names = {name for folder in self._folders for name in _importable(folder)} - _OF_THE_HOST
        self._own: dict[str, ModuleType] = {}

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Show the interpreter as this module sees it."""
        path, working = sys.path[:], os.getcwd()
        hidden = self._enter()
        known = set(sys.modules)
        try:
            os.chdir(self._working)
            os.environ.update(self._variables)
            yield
        finally:
            self._path = sys.path[:]
            sys.path[:] = path
            os.chdir(working)
            self._leave(known, hidden)

    def _enter(self) -> dict[str, ModuleType]:
        """Put the module's own modules in their places; those of others that stood there."""
        sys.path[:] = self._path
        hidden = {}
        for name in self._names & sys.modules.keys():
            hidden.update({each: sys.modules[each] for each in _family(name)})
        for name in hidden:
            del sys.modules[name]
        sys.modules.update(self._own)
        return hidden

    def _leave(self, known: set[str], hidden: dict[str, ModuleType]) -> None:
        """Take the module's own modules out again."""
        for name in sys.modules.keys() - known:
            module = sys.modules[name]
            if self._owns(module):
                self._own[name] = module
        for name in self._own:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)

    def _owns(self, module: ModuleType) -> bool:
        """True for a module out of the own folders, and out of no installed package that lies inside them."""
        file = _file(module)
        if file is None:
            return False
        mine = max((len(each) for each in self._folders if _inside(file, each)), default=0)
        shared = max((len(each) for each in self._shared_path if _inside(file, each)), default=0)
        return mine > shared


class Shared:
    """One namespace for all modules."""

    def __init__(self) -> None:
        self.module = ModuleType("pipeline")
        self._bound: dict[str, tuple[str, Path, Any]] = {}
        self._rebound: set[str] = set()

    def run(self, name: str, script: Path, entries: Sequence[str]) -> ModuleType:
        """Execute a script in it; what it offers: its classes, and its entry points, which are taken out.

        Raises:
            ModelLoadError: it has bound a name that another module has bound to something else.
        """
        namespace, known_as = self.module.__dict__, importable_name(script)
        namespace.update(__file__=str(script), __name__=known_as)
        sys.modules[known_as] = self.module  # dataclasses and pickle look up a class where its `__module__` says
        exec(compile(script.read_bytes(), str(script), "exec", dont_inherit=True), namespace)
        found = ModuleType(known_as)
        found.__dict__.update({entry: namespace.pop(entry) for entry in entries if entry in namespace})
        bound, rebound = _bound_names(script), _rebound_names(script)
        self._check(name, script, bound.keys() & (rebound.keys() | self._rebound))
        self._rebound |= rebound.keys()
        for key in bound.keys() - set(entries):
            value = namespace.get(key)
            self._bound.setdefault(key, (name, script, value))
            if isinstance(value, type):
                found.__dict__[key] = value
        return found

    def _check(self, name: str, script: Path, rebound: Set[str]) -> None:
        """Compare what the earlier modules bound with what is there now; `rebound` changes later."""
        clashes = []
        for key, (other, where, value) in self._bound.items():
            if key in rebound or not _same(value, self.module.__dict__.get(key)):
                places = f"{other!r} ({_place(where, key)}) and {name!r} ({_place(script, key)})"
                clashes.append(f"{key!r} is bound by {places}")
        if clashes:
            shown = clashes[:_MOST_NAMED]
            raise ModelLoadError(
                f"share_globals: {'; '.join(shown)}",
                hint="rename one of them, or leave share_globals out: then each module has its own names",
            )


def check_bundles(bundles: Sequence[tuple[str, Path]]) -> None:
    """Refuse bundles whose modules would stand for one another, where all modules share one namespace.

    Args:
        bundles: the names of the modules, and the folders of their bundles.

    Raises:
        ModelLoadError: two have a module of one name.
    """
    first: dict[str, tuple[str, Path]] = {}
    for name, folder in bundles:
        for module in sorted(_importable(str(folder))):
            other, where = first.setdefault(module, (name, folder))
            if where != folder:
                raise ModelLoadError(
                    f"share_globals: the bundles of {other!r} and {name!r} both have a module {module!r}",
                    hint="rename one of them, or leave share_globals out: then each module has its own",
                )


def _importable(folder: str) -> Iterator[str]:
    """The names that `import` finds in a folder, whatever is installed: a folder of data may be called `sklearn`."""
    for entry in os.scandir(folder):
        if entry.is_dir():
            if os.path.exists(os.path.join(entry.path, "__init__.py")):
                yield entry.name
        elif entry.name.endswith((".py", ".so")):
            yield entry.name.split(".")[0]


def _family(name: str) -> list[str]:
    return [each for each in sys.modules if each == name or each.startswith(f"{name}.")]


def _file(module: Any) -> str | None:
    file = getattr(module, "__file__", None)
    if file is None:
        # A package without `__init__.py` has only a path.
        places = list(getattr(module, "__path__", ()))
        file = places[0] if places else None
    return os.path.realpath(file) if isinstance(file, str) else None


def _inside(file: str, folder: str) -> bool:
    return file == folder or file.startswith(folder.rstrip(os.sep) + os.sep)


def _same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, _SIMPLE) and type(one) is type(other) and bool(one == other))


def _bound_names(script: Path) -> dict[str, int]:
    """The names that a script binds at top level, or in functions with `global`, and the line of each."""
    found = _rebound_names(script)
    for node in _top_level(ast.parse(script.read_bytes()).body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = node.lineno
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                found[inner.id] = inner.lineno
            elif isinstance(inner, ast.alias):
                found[(inner.asname or inner.name).split(".")[0]] = node.lineno
    return found


def _rebound_names(script: Path) -> dict[str, int]:
    """The names that functions bind for the whole script, and the line of each."""
    statements = [node for node in ast.walk(ast.parse(script.read_bytes())) if isinstance(node, ast.Global)]
    return {name: node.lineno for node in statements for name in node.names}


def _top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the script does: also those in `if`, `for`, `while`, `with` and `try`."""
    for node in body:
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from _top_level(getattr(node, name, ()))
        for handler in getattr(node, "handlers", ()):
            yield from _top_level(handler.body)


def _place(script: Path, name: str) -> str:
    line = _bound_names(script).get(name)
    return f"{script.name} line {line}" if line else script.name
