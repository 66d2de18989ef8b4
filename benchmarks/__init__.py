"""What Paceline costs and saves, measured: `python -m benchmarks --list`.

Rules:
- What is compared is interleaved (A B A B), in one run, on one machine; results are medians of the rounds,
  and ratios of medians.
- A server under test is a real process; before it is loaded, its answer is compared with ONNX Runtime's.
- Peers run the same model file, set up as their own documentation advises for throughput.
- A report holds every sample, the commands, the versions and the load of the machine when the run began.
"""
