"""What does a requirements.txt ask for?"""

import pytest

from paceline.core.errors import ModelLoadError
from paceline.workers import requirements


def read(folder, text: str) -> list[str]:
    file = folder / "requirements.txt"
    file.write_text(text)
    return requirements.read(file)


@pytest.mark.parametrize(
    "text",
    [
        "six==1.0\nattrs\n",
        "# why\n\nsix==1.0   # pinned\n  attrs",
        "\N{BYTE ORDER MARK}six==1.0\r\nattrs\r\n",
        "six\\\n==1.0\nattrs",
    ],
)
def test_comments_and_line_breaks_ask_for_nothing_else(tmp_path, text):
    assert read(tmp_path, text) == ["six==1.0", "attrs"]


def test_nothing_is_asked_for(tmp_path):
    assert read(tmp_path, "# nothing\n\n") == []


def test_the_fragment_of_a_url_is_no_comment(tmp_path):
    line = "https://example.org/six.whl#sha256=00"
    assert read(tmp_path, line) == [line]


@pytest.mark.parametrize("option", ["-r", "-r ", "-c ", "--requirement ", "--requirement=", "--constraint = "])
def test_included_files_count(tmp_path, option):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.txt").write_text("-r last.txt\nattrs\n")
    (tmp_path / "more" / "last.txt").write_text("trio\n")
    assert read(tmp_path, f"six\n{option}more/other.txt\n") == ["six", "trio", "attrs"]


def test_files_that_include_each_other_end(tmp_path):
    (tmp_path / "other.txt").write_text("-r requirements.txt\nattrs\n")
    assert read(tmp_path, "-r other.txt\nsix") == ["attrs", "six"]


def test_a_file_of_the_network_is_left_to_pip(tmp_path):
    line = "-r https://example.org/requirements.txt"
    assert read(tmp_path, line) == [line]


def test_an_included_file_is_missing(tmp_path):
    with pytest.raises(ModelLoadError, match=r"^requirements.txt: other.txt: cannot be read: No such file"):
        read(tmp_path, "six\n-r other.txt\n")


def test_the_file_is_no_text(tmp_path):
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelLoadError, match=r"^requirements.txt: cannot be read: not UTF-8$"):
        requirements.read(tmp_path / "requirements.txt")
