"""Adapters to machine-learning frameworks, one file each, imported only when a model of that kind is loaded."""
