"""What somebody at a terminal sees of a load test, while it runs and at its end, and the keys and signals to it."""
