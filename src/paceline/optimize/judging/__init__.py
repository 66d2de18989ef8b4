"""May a candidate be served? Its answers are compared with labels, or with the original's."""
