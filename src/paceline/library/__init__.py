"""What other people's applications import: `paceline.batched` and `paceline.cached`."""
