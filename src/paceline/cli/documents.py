"""How does a verb print what it has found as JSON?"""

from __future__ import annotations

from typing import Any

import click

json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def print_document(document: Any) -> None:
    """Print one, of any type that msgspec knows."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
