"""Which form of a model is the fastest here, and is it still as good?

A *study* takes a model and real rows. It makes *candidates*, each the model changed and run in some way. A *gate*
judges their answers, interleaved runs their speed. What is chosen becomes a *bundle*, which `paceline serve` takes.

The parts:
- `rows.py`, `candidate.py`, `result.py`: the nouns.
- `data.py`: rows and labels from the user's files. `metrics.py`, `gate.py`: what a drop is, and whether it is allowed.
- `steps.py`: whatever loads a framework runs in a process of its own: it may be killed, and what it made is kept.
- `formats/`: one file per library: how its models become ONNX, and whether they say the same afterwards.
- `transforms/`: one file per kind of change: from one ONNX file to another.
- `facts.py`: what a model is made of; `space.py`: which candidates are worth a try.
- `predictor.py`, `measure.py`: a candidate in a process of its own, asked and timed.
- `study.py`: the order of it all, within a budget; `reporting/`: what people see of it.
"""
