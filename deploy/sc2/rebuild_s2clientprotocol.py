"""Rebuilds the generated code of s2clientprotocol for today's protobuf, where it is installed.

    rebuild_s2clientprotocol.py PYTHON_WITH_GRPC_TOOLS

The wheel's code is from protobuf 3.5 and refused since protobuf 4 ("Descriptors cannot be created directly"),
except by protobuf's slow pure-Python implementation. That one is used once here, to read the message
definitions out of the old code; the compiler then writes new code from them. The new code is also about
twice as fast as the old one was. Running it again is harmless.
"""

import os

os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"  # read when protobuf is imported

import importlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

PACKAGE = "s2clientprotocol"


def main() -> None:
    """Compiles into a temporary folder first: a failure leaves the old code as it was."""
    (compiler,) = sys.argv[1:]
    installed = Path(next(iter(importlib.import_module(PACKAGE).__path__)))
    names = sorted(path.stem for path in installed.glob("*_pb2.py"))
    files = [importlib.import_module(f"{PACKAGE}.{name}").DESCRIPTOR for name in names]
    with tempfile.TemporaryDirectory() as folder:
        definitions = Path(folder, "definitions")
        definitions.write_bytes(_descriptor_set(files))
        command = [compiler, "-m", "grpc_tools.protoc", f"--descriptor_set_in={definitions}"]
        command += [f"--python_out={folder}", *(file.name for file in files)]
        subprocess.run(command, check=True)
        for name in names:
            shutil.copyfile(Path(folder, PACKAGE, f"{name}.py"), installed / f"{name}.py")


def _descriptor_set(files: list[FileDescriptor]) -> bytes:
    """The definitions of all files; those that others import come first, as the compiler wants it."""
    ordered: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            add(dependency)
        if file.name not in ordered:
            ordered[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)

    for file in files:
        add(file)
    return descriptor_pb2.FileDescriptorSet(file=ordered.values()).SerializeToString()


if __name__ == "__main__":
    main()
