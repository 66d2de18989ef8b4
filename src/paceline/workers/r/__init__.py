"""The worker for R code. `host/` runs in the worker, everything else in the server."""
