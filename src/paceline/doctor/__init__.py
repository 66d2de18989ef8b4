"""Is this machine ready for inference, and what would make it readier?

Rules:
- A check is a function from a `Host`, which is a tree of files and an environment, to findings; so each is tried on
  machines that nobody here has.
- What cannot be read is not judged: another kernel, or nobody's business. No check changes anything.
- A finding that is no `ok` says what to do. Numbers that are reasons are told, not hidden in a verdict.

The parts: `host.py` and `finding.py` are the nouns; `processor.py`, `limits.py`, `memory.py`,
`variables.py` and `software.py` hold the checks; `examination.py` runs them; `measuring.py` tries the machine out.
"""
