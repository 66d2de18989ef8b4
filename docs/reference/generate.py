"""Write the reference pages that the code already knows: `make docs`.

A test compares the pages with what this writes, so they cannot drift.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from paceline.config.setting import Setting
from paceline.config.settings import SETTINGS
from paceline.doctor.finding import Examination
from paceline.inspection.report import Report
from paceline.loadtest.result import Result
from paceline.optimize.result import Study

HERE = Path(__file__).parent

DOCUMENTS = {"load-test": Result, "study": Study, "inspect": Report, "doctor": Examination}

SETTINGS_PAGE = """\
# Settings

Each setting is a flag of `paceline serve`, a key of `[serve]` in `paceline.toml`, and a variable
`PACELINE_<NAME>`.
A flag wins over a variable, a variable over the file, the file over the default. `$PORT` sets the port, too.
`paceline config show --origin` prints every value and where it comes from.

`auto` means that Paceline chooses by measuring. The settings marked * can be set for one model, in
`[models.NAME]`. Sizes count in powers of two: 1 KB is 1024 bytes.

| setting | takes | default | meaning |
|---|---|---|---|
"""


def pages() -> Iterator[tuple[Path, str]]:
    yield HERE / "settings.md", SETTINGS_PAGE + "".join(map(_row, SETTINGS.values()))
    for name, document in DOCUMENTS.items():
        yield HERE / f"{name}.schema.json", json.dumps(msgspec.json.schema(document), indent=1) + "\n"


def _row(setting: Setting) -> str:
    name = f"`{setting.name}`{' *' if setting.per_model else ''}"
    return f"| {name} | {_takes(setting)} | {_default(setting)} | {setting.help} |\n"


def _takes(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    if setting.minimum is not None and setting.maximum is not None:
        return (
            f"{setting.minimum:g} to {setting.maximum:.15g}{f', or `{setting.none_text}`' if setting.automatic else ''}"
        )
    return setting.pattern_help or setting.metavar.lower()


def _default(setting: Setting) -> str:
    if setting.default is None:
        return f"`{setting.none_text}`" if setting.automatic else ""
    return f"`{str(setting.default).lower() if setting.type is bool else setting.default}`"


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text)
        print(f"wrote {path.relative_to(Path.cwd())}")
