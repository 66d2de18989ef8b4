"""Zip bundles: what is extracted, and what is refused before anything is written."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paceline.core.errors import ModelLoadError
from paceline.runtimes.archive import MOST_ENTRIES, RATIO_FREE_BYTES
from paceline.workers.python import bundles

INTO = "Script Bundle"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with another one around it, into which a bundle may try to break out."""
    home = tmp_path / "outer" / "service"
    home.mkdir(parents=True)
    return home


def bundle(home: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], name: str = "bundle.zip") -> Path:
    path = home / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    return path


def entry(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".gitignore"}


def refused(home: Path, archive: Path) -> str:
    """The message of a refusal, after which nothing but the archive is there."""
    before = files(home.parents[1])
    with pytest.raises(ModelLoadError) as caught:
        bundles.extract(archive, INTO)
    assert files(home.parents[1]) == before
    assert not list(home.rglob("bundle-*"))
    return caught.value.message


def test_files_and_folders(home: Path) -> None:
    archive = bundle(home, ("a.py", b"A = 1"), ("pkg/", b""), ("pkg/sub/b.txt", b"b"), ("./c.txt", b"c"))
    folder = bundles.extract(archive, INTO)
    assert files(folder / INTO) == {"a.py", "pkg/sub/b.txt", "c.txt"}
    assert (folder / INTO / "a.py").read_bytes() == b"A = 1"
    assert folder.is_relative_to(home)
    assert stat.S_IMODE((folder / INTO / "a.py").stat().st_mode) == 0o444


def test_names_made_on_windows(home: Path) -> None:
    folder = bundles.extract(bundle(home, ("pkg\\b.txt", b"b")), INTO)
    assert files(folder / INTO) == {"pkg/b.txt"}


def test_extracted_once(home: Path) -> None:
    archive = bundle(home, ("a.py", b"A = 1"))
    folder = bundles.extract(archive, INTO)
    (folder / "mark").touch()
    assert bundles.extract(archive, INTO) == folder
    assert (folder / "mark").exists()


def test_another_bundle_of_that_name_is_extracted_anew(home: Path) -> None:
    first = bundles.extract(bundle(home, ("a.py", b"A = 1")), INTO)
    second = bundles.extract(bundle(home, ("a.py", b"A = 2")), INTO)
    assert first != second
    assert (second / INTO / "a.py").read_bytes() == b"A = 2"


def test_for_two_languages(home: Path) -> None:
    archive = bundle(home, ("a.csv", b"1"))
    assert files(bundles.extract(archive, "src")) == {"src/a.csv"}
    assert files(bundles.extract(archive, INTO)) == {f"{INTO}/a.csv"}


def test_an_archive_of_64_bits(home: Path) -> None:
    path = home / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.txt", "w", force_zip64=True) as file:
        file.write(b"hello")
    assert (bundles.extract(path, INTO) / INTO / "a.txt").read_bytes() == b"hello"


def test_several_workers_at_once(home: Path) -> None:
    archive = bundle(home, *[(f"f{index}.txt", os.urandom(10_000)) for index in range(50)])
    with ThreadPoolExecutor(8) as threads:
        folders = set(threads.map(lambda _: bundles.extract(archive, INTO), range(16)))
    (folder,) = folders
    assert len(files(folder)) == 50
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, ".gitignore"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x", "leads outside"),
        ("a/../../x", "leads outside"),
        ("..\\x", "leads outside"),
        ("/etc/x", "absolute"),
        ("C:\\x", "absolute"),
        ("c:x", "absolute"),
        ("a\nb", "control characters"),
        ("./", "no usable path"),
        ("x" * 300, "no usable path"),
        ("d/" * 40 + "x", "no usable path"),
    ],
)
def test_fault_101_paths(home: Path, name: str, why: str) -> None:
    assert why in refused(home, bundle(home, ("good.py", b""), (name, b"x")))


def test_fault_101_a_name_behind_a_nul(home: Path) -> None:
    archive = bundle(home, ("a.py_../x", b"x"))
    archive.write_bytes(archive.read_bytes().replace(b"a.py_../x", b"a.py\0../x"))
    assert "control characters" in refused(home, archive)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (stat.S_IFLNK, "is a link"),
        (stat.S_IFCHR, "neither a file nor a folder"),
        (stat.S_IFBLK, "neither a file nor a folder"),
        (stat.S_IFIFO, "neither a file nor a folder"),
        (stat.S_IFSOCK, "neither a file nor a folder"),
        (stat.S_IFDIR, "neither a file nor a folder"),
    ],
)
def test_fault_101_links_and_devices(home: Path, kind: int, why: str) -> None:
    assert why in refused(home, bundle(home, (entry("x", kind), b"/etc/passwd")))


def test_fault_101_a_link_and_a_file_behind_it(home: Path) -> None:
    archive = bundle(home, (entry("d", stat.S_IFLNK), b"/tmp"), ("d/x", b"x"))
    assert "is a link" in refused(home, archive)


@pytest.fixture
def quiet_about_duplicates() -> Iterator[None]:
    with pytest.warns(UserWarning, match="Duplicate name"):
        yield


def test_fault_101_duplicates(home: Path, quiet_about_duplicates: None) -> None:
    assert "is there twice" in refused(home, bundle(home, ("a", b"1"), ("a", b"2")))


@pytest.mark.parametrize("names", [("a", "./a"), ("a", "a//"), ("d/a", "d//a"), ("a", "a\\")])
def test_fault_101_duplicates_under_another_name(home: Path, names: tuple[str, str]) -> None:
    assert "is there twice" in refused(home, bundle(home, *[(name, b"") for name in names]))


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_fault_101_a_file_that_is_a_folder(home: Path, names: tuple[str, str]) -> None:
    message = refused(home, bundle(home, *[(name, b"") for name in names]))
    assert "a file and a folder" in message or "is there twice" in message


@pytest.mark.slow
def test_fault_101_a_bomb(home: Path) -> None:
    assert "a bomb" in refused(home, bundle(home, ("zeros", bytes(RATIO_FREE_BYTES + 1))))


@pytest.mark.slow
def test_fault_101_a_bomb_of_entries(home: Path) -> None:
    archive = bundle(home, *[(str(index), b"") for index in range(MOST_ENTRIES + 1)])
    assert "10001 entries: at most 10000" in refused(home, archive)


def test_fault_101_a_bomb_of_bytes(home: Path) -> None:
    archive = bundle(home, ("a", b"x"), ("b", b"x"))
    raw = bytearray(archive.read_bytes())
    at = -1
    while (at := raw.find(b"PK\x01\x02", at + 1)) >= 0:
        # The size of the entry in the central directory, 24 bytes behind its signature.
        raw[at + 24 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    archive.write_bytes(raw)
    assert "8589934560 bytes: at most 4294967296" in refused(home, archive)


def test_fault_101_a_file_that_is_longer_than_declared(home: Path) -> None:
    archive = bundle(home, ("a", b"x" * 1000))
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert "cannot be read as a zip" in refused(home, archive)


def test_fault_101_entries_that_lie_over_one_another(home: Path) -> None:
    archive = bundle(home, ("a", bytes(1 << 20)), *[(f"b{index}", b"") for index in range(400)])
    raw = bytearray(archive.read_bytes())
    first = raw.index(b"PK\x01\x02")
    at = first
    while (at := raw.find(b"PK\x01\x02", at + 1)) >= 0:
        # Method, time, checksum and sizes of the entry, and where its data is: all those of the first.
        raw[at + 10 : at + 28], raw[at + 42 : at + 46] = raw[first + 10 : first + 28], raw[first + 42 : first + 46]
    archive.write_bytes(raw)
    assert "a bomb" in refused(home, archive)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_fault_101_other_compressions(home: Path, method: int) -> None:
    info = zipfile.ZipInfo("a")
    info.compress_type = method
    assert "in another way than by deflate" in refused(home, bundle(home, (info, b"x")))


def test_fault_101_damaged_data(home: Path) -> None:
    archive = bundle(home, ("a", b"hello world" * 1000))
    raw = archive.read_bytes()
    archive.write_bytes(raw[:35] + b"\xff" * 10 + raw[45:])
    assert "cannot be read as a zip" in refused(home, archive)


def test_fault_101_a_name_that_is_no_text(home: Path) -> None:
    archive = bundle(home, ("é.py", b"x"))
    archive.write_bytes(archive.read_bytes().replace("é".encode(), b"\xff\xfe"))
    assert "cannot be read as a zip" in refused(home, archive)


def test_fault_101_an_endless_list_of_names(home: Path) -> None:
    archive = bundle(home, ("a", b"x"))
    raw = archive.read_bytes()
    at, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    names = raw[at:end] * ((20 << 20) // (end - at))
    # The size of the list, 12 bytes behind the signature of what ends the archive.
    archive.write_bytes(raw[:at] + names + raw[end : end + 12] + len(names).to_bytes(4, "little") + raw[end + 16 :])
    assert "its list of names has" in refused(home, archive)


def test_fault_101_a_bomb_of_folders(home: Path) -> None:
    deep = [("/".join([str(index), *"d" * 30, "f"]), b"") for index in range(MOST_ENTRIES // 30)]
    assert "more than 10000 files and folders" in refused(home, bundle(home, *deep))


def test_fault_101_encrypted(home: Path) -> None:
    archive = bundle(home, ("a", b"x"))
    raw = bytearray(archive.read_bytes())
    # The flags of the entry in the central directory, 8 bytes behind its signature.
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    assert "is encrypted" in refused(home, archive)


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04"])
def test_fault_101_no_zip(home: Path, data: bytes) -> None:
    archive = home / "bundle.zip"
    archive.write_bytes(data)
    assert "cannot be read as a zip" in refused(home, archive)


# -- which bundle is meant? -------------------------------------------------------------------------------


def test_the_bundle_of_a_script(home: Path) -> None:
    script = home / "clean.py"
    assert bundles.beside(script) is None
    for name in ("clean.zip", "Script Bundle.zip", "bundle.zip"):
        path = bundle(home, ("a", b""), name=name)
        assert bundles.beside(script) == path
        path.unlink()


def test_two_bundles_are_one_too_many(home: Path) -> None:
    bundle(home, ("a", b""), name="clean.zip")
    bundle(home, ("a", b""))
    with pytest.raises(ModelLoadError, match=r"'clean\.zip' and 'bundle\.zip' lie beside it"):
        bundles.beside(home / "clean.py")
    assert bundles.beside(home / "clean.py", home / "clean.zip") == home / "clean.zip"


def test_a_bundle_that_is_not_there(home: Path) -> None:
    with pytest.raises(ModelLoadError, match="no such bundle"):
        bundles.beside(home / "clean.py", home / "missing.zip")


# -- where nothing may be written beside it ---------------------------------------------------------------


@pytest.fixture
def read_only(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle in a folder that is not writable; the temporary directory is another one."""
    archive = bundle(home, ("a.py", b"A = 1"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    # For root, everything is writable.
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(home))
    return archive


def test_fault_010_a_read_only_folder(home: Path, read_only: Path, tmp_path: Path) -> None:
    folder = bundles.extract(read_only, INTO)
    assert files(folder / INTO) == {"a.py"}
    assert folder.is_relative_to(tmp_path / "tmp")
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert not (home / ".paceline").exists()


def test_a_temporary_folder_that_is_a_link_is_not_used(read_only: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp" / f"paceline-{os.getuid()}").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModelLoadError, match="belongs to somebody else"):
        bundles.extract(read_only, INTO)


def test_a_temporary_folder_that_others_may_write_is_not_used(read_only: Path, tmp_path: Path) -> None:
    own = tmp_path / "tmp" / f"paceline-{os.getuid()}"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    with pytest.raises(ModelLoadError, match="belongs to somebody else"):
        bundles.extract(read_only, INTO)
