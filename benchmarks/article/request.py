"""What do users ask for? The same path and the same kind of row in every set-up."""

from typing import Final

PATH: Final = "/v1/models/service:predict"
WIDTH: Final = 64
"""Numbers in a row of the input."""
