"""Which form of a model is the fastest here, and is it still as good?

A *study* takes a model and real rows. It makes *candidates*, each the model changed and run in some way. A *gate*
judges their answers, interleaved runs their speed. What is chosen becomes a *bundle*, which `paceline serve` takes.

The parts:
- `candidate.py`, `result.py`, `wanted.py`: the nouns.
- `data/`: rows and labels from the user's files. `judging/`: what a drop is, and whether it is allowed.
- `processes/`: whatever loads a framework runs in a process of its own: it may be killed, and what it made is kept.
- `formats/`: one file per library: how its models become ONNX, and whether they say the same afterwards.
- `transforms/`: one file per kind of change: from one ONNX file to another.
- `search/`: what a model is made of, which candidates are worth a try, and which of them is the best.
- `comparing.py`, `measure.py`: whether two forms answer alike, and which is faster.
- `studying/`: the order of it all, within a budget; `reporting/`: what people see of it.
"""
