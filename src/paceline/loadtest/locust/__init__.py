"""Load tests with Locust instead of our own client: the script, and the process that runs it."""
