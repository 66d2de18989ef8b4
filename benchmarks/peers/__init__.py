"""Paceline beside other servers: the same models, the same client, one run. `python -m benchmarks.peers --help`.

Rules:
- One file per peer: its environment, how its documentation says it is started, what it can be asked.
- Every case is a server of its own, started anew in each round; the rounds are interleaved.
- Before it is loaded, a server's answers are compared with the model's own.
- A ratio is between two servers that were asked in the same way: JSON with JSON, gRPC with gRPC.
"""
