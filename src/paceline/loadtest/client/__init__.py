"""The process that sends the requests of a load test: one loop, its connections, and what is recorded of each."""
