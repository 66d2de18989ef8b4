"""What is in a model file? Read without executing anything.

Rules:
- Nothing of a file is run, unpickled, imported or followed to another place. No framework is needed, or loaded.
- Whatever a file says of sizes is not believed: reading is bounded in bytes, entries, depth and steps. What is past a
  bound, or no whole file, is a `ModelLoadError`, never a crash.
- Names from a file are data: they are shown with their control characters escaped, and never become paths to open.

The parts: `report.py` is the noun; `dispatch.py` finds the reader of a format; each reader is a file of its own.
`opcodes.py` and `names.py` tell what a pickle would do; `streams.py` reads bounded, as do `archive.py`, `wire.py` and
`ubjson.py` of `paceline.runtimes`, which has the rules that serving keeps as well.
"""
