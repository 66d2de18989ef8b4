"""The worker for R code. `starting` and `columns` run in the server, `host.R` in the worker."""
