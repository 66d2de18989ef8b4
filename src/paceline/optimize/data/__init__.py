"""Which rows is a model asked? They are read from files, matched with its inputs, and split."""
