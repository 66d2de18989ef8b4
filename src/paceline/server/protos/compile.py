"""Compiles `*.proto` to `descriptors.binpb`; `make protos` runs it. Needs grpcio-tools."""

from pathlib import Path

FOLDER = Path(__file__).parent


def compiled() -> bytes:
    """The descriptors of all files, with those they import."""
    import tempfile

    from grpc_tools import protoc

    names = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.proto"))
    with tempfile.NamedTemporaryFile(suffix=".binpb") as target:
        include = Path(protoc.__file__).parent / "_proto"
        flags = [f"-I{FOLDER}", f"-I{include}", "--include_imports", f"--descriptor_set_out={target.name}"]
        if protoc.main(["protoc", *flags, *names]):
            raise SystemExit("protoc failed")
        return Path(target.name).read_bytes()


if __name__ == "__main__":
    (FOLDER / "descriptors.binpb").write_bytes(compiled())
