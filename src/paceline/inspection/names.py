"""Which names in a pickle are harmless, and which are not?

Rules:
- What can run commands or code, open files or reach the network is dangerous, even where it is only referred to.
- In the parts of libraries that models are made of, classes are harmless, and so are the few functions that their own
  pickles call. Any other function there is harmless to refer to, but not to call.
- What is in neither list is unknown: it may be the user's own class, or anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple


class Verdict(NamedTuple):
    """What is known of a name, and why."""

    level: Literal["known", "unknown", "dangerous"]
    why: str


def judge(module: str, name: str, *, called: bool) -> Verdict:
    """What is known of a name that a pickle looks up.

    Args:
        called: it is called while the pickle is loaded.
    """
    if f"{module}.{name}" in _HARMLESS or (module == "builtins" and name in _BUILTINS):
        return Verdict("known", "a plain type or helper")
    why = _danger(module, name)
    if why is not None:
        return Verdict("dangerous", why)
    library = module.partition(".")[0]
    trusted = any(module == part or module.startswith(f"{part}.") for part in _TRUSTED)
    if trusted and _is_usual(module, name, called=called):
        return Verdict("known", f"of {library}")
    if module == "__main__":
        return Verdict("unknown", "from the script that wrote the file")
    return Verdict("unknown", f"a function of {library} that is called" if trusted else "not known here")


def _danger(module: str, name: str) -> str | None:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        why = _DANGEROUS_MODULES.get(".".join(parts[:length]))
        if why is not None:
            return why
    # A dotted name walks through attributes: `sklearn.utils` has `os` within reach.
    steps = name.split(".")
    if len(steps) > 1 and any(step in _DANGEROUS_MODULES or step.startswith("__") for step in steps):
        return _ANY
    return _DANGEROUS_NAMES.get(f"{module}.{name}")


def _is_usual(module: str, name: str, *, called: bool) -> bool:
    if not called:
        return "." not in name or all(map(_CLASS.fullmatch, name.split(".")))
    if module == "torch":  # beside types, it has classes that write files
        return name.endswith(("Storage", "Tensor"))
    if module == "numpy":
        return _NUMBER_TYPE.fullmatch(name) is not None
    return all(map(_CLASS.fullmatch, name.split("."))) or _MADE_BY_CYTHON.fullmatch(name) is not None


_COMMANDS: Final = "runs commands"
_CODE: Final = "runs code"
_FILES: Final = "reads, writes or deletes files"
_NETWORK: Final = "reaches the network"
_ANY: Final = "gets at any other function"
_CARRIED: Final = "makes functions of code that the file carries"


def _table(texts: Mapping[str, str]) -> dict[str, str]:
    """By word of a text: its key."""
    return {word: why for why, text in texts.items() for word in text.split()}


_DANGEROUS_MODULES: Final = _table({
    _COMMANDS: "os posix nt subprocess pty commands popen2 _posixsubprocess multiprocessing concurrent asyncio pip "
               "platform ensurepip",
    _CODE: "code codeop runpy timeit pdb bdb cProfile profile trace doctest pickle _pickle marshal shelve dbm "
           "zipimport importlib imp pkgutil numpy.testing numpy.f2py numpy.distutils torch.utils torch.hub "
           "torch._dynamo torch._inductor torch.jit torch.serialization",
    _ANY: "ctypes _ctypes cffi numpy.ctypeslib gc sys signal threading _thread inspect types weakref atexit unittest "
          "site distutils setuptools",
    _FILES: "shutil tempfile glob fileinput zipfile tarfile mmap sqlite3 io _io linecache logging numpy.lib scipy.io "
            "pandas.io sklearn.datasets",
    _NETWORK: "socket _socket ssl http urllib urllib2 urllib3 requests httpx aiohttp ftplib smtplib telnetlib xmlrpc "
              "webbrowser socketserver selectors",
    _CARRIED: "cloudpickle dill joblib.externals",
})  # fmt: skip
"""By module: everything in it, and below it, is dangerous."""

_DANGEROUS_NAMES: Final = _table({
    _CODE: "builtins.eval builtins.exec builtins.execfile builtins.compile builtins.breakpoint builtins.__import__ "
           "builtins.__build_class__ joblib.load joblib.Parallel joblib.Memory joblib.delayed pandas.read_pickle "
           "pandas.eval torch.load torch.compile",
    _ANY: "builtins.getattr builtins.setattr builtins.delattr builtins.globals builtins.locals builtins.vars "
          "builtins.apply builtins.map builtins.filter builtins.reduce builtins.type builtins.super "
          "operator.attrgetter operator.methodcaller functools.reduce functools.partialmethod",
    _FILES: "builtins.open builtins.file builtins.input builtins.raw_input numpy.load numpy.save numpy.savez "
            "numpy.savetxt numpy.loadtxt numpy.genfromtxt numpy.fromfile numpy.memmap numpy.DataSource pandas.HDFStore "
            "pandas.ExcelWriter pandas.ExcelFile joblib.dump torch.save torch.from_file",
})  # fmt: skip

_BUILTINS: Final = frozenset(_table({
    "": "set frozenset list dict tuple int float complex bytes bytearray str bool slice range object Ellipsis "
        "NotImplemented",
}))  # fmt: skip
_HARMLESS: Final = frozenset(_table({
    "Python": "copyreg._reconstructor copyreg.__newobj__ copyreg.__newobj_ex__ _codecs.encode collections.OrderedDict "
              "collections.defaultdict collections.deque collections.Counter datetime.datetime datetime.date "
              "datetime.time datetime.timedelta datetime.timezone decimal.Decimal fractions.Fraction uuid.UUID "
              "pathlib.PurePosixPath pathlib.PosixPath pathlib.WindowsPath io.BytesIO _io.BytesIO io.StringIO "
              "functools.partial operator.itemgetter types.SimpleNamespace random.Random re._compile",
    "numpy": "numpy.ndarray numpy.dtype numpy.matrix numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar "
             "numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar numpy.core.numeric._frombuffer "
             "numpy._core.numeric._frombuffer numpy.ma.core._mareconstruct numpy.core._ufunc_reconstruct "
             "numpy._core._ufunc_reconstruct numpy.random._pickle.__randomstate_ctor "
             "numpy.random._pickle.__generator_ctor numpy.random._pickle.__bit_generator_ctor",
    "sklearn": "sklearn.neighbors._kd_tree.newObj sklearn.neighbors._ball_tree.newObj "
               "sklearn.metrics._dist_metrics.newObj",
    "pandas": "pandas._libs.internals._unpickle_block pandas.core.internals.blocks.new_block "
              "pandas.core.indexes.base._new_Index pandas._libs.tslibs.timestamps._unpickle_timestamp",
    "torch": "torch._utils._rebuild_tensor_v2 torch._utils._rebuild_tensor_v3 torch._utils._rebuild_tensor "
             "torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state "
             "torch._utils._rebuild_qtensor torch._utils._rebuild_sparse_tensor torch._tensor._rebuild_from_type_v2 "
             "torch.device torch.Size torch.serialization._get_layout",
    "joblib": "joblib.numpy_pickle.NumpyArrayWrapper",
}))  # fmt: skip

_TRUSTED: Final = tuple(_table({
    "": "numpy scipy.sparse scipy.interpolate scipy.spatial scipy.stats scipy.special scipy.optimize scipy.linalg "
        "sklearn pandas xgboost lightgbm catboost _catboost torch",
}))  # fmt: skip
"""What models are made of: the modules themselves, and those below them."""

_CLASS: Final = re.compile(r"_*[A-Z]\w*")
_NUMBER_TYPE: Final = re.compile(r"(bool|u?int|float|complex|str|bytes|datetime|timedelta|void|longdouble|half)\d*_?")
_MADE_BY_CYTHON: Final = re.compile(r"__pyx_unpickle_\w+")
