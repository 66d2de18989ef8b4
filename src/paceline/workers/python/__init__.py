"""The worker for Python code. `starting` runs in the server, everything else in the worker."""
