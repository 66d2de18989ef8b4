"""Compiles `*.proto` to `descriptors.binpb`; `make protos` runs it. Needs grpcio-tools."""

from pathlib import Path

FOLDER = Path(__file__).parent


def compiled() -> bytes:
    """The descriptors of all files, with those they import.

    Raises:
        subprocess.CalledProcessError: a file is wrong.
    """
    import subprocess
    import sys
    import tempfile

    import grpc_tools

    names = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.proto"))
    with tempfile.NamedTemporaryFile(suffix=".binpb") as target:
        include = Path(grpc_tools.__file__).parent / "_proto"
        flags = [f"-I{FOLDER}", f"-I{include}", "--include_imports", f"--descriptor_set_out={target.name}"]
        # A process of its own: the compiler brings its own protobuf, which crashes beside TensorFlow's.
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *flags, *names], check=True)
        return Path(target.name).read_bytes()


if __name__ == "__main__":
    (FOLDER / "descriptors.binpb").write_bytes(compiled())
