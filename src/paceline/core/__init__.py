"""The nouns of Paceline: errors, tensors, requests, statistics. Standard library and numpy only."""
