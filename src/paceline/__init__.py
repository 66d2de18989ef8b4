"""Paceline serves a model over HTTP with the lowest response time, and finds the settings by measuring."""

__version__ = "0.1.0"
