"""A plugin of protoc that makes the gRPC part of Python's code: grpcio-tools has it in its protoc alone, which buf can't call for it."""

import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc

request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
response = plugin_pb2.CodeGeneratorResponse(
    supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
)
with tempfile.TemporaryDirectory() as folder:
    files = descriptor_pb2.FileDescriptorSet(file=request.proto_file)
    descriptors = pathlib.Path(folder, "descriptors")
    descriptors.write_bytes(files.SerializeToString())
    made = pathlib.Path(folder, "made")
    made.mkdir()
    code = protoc.main(
        ["", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={made}", *request.file_to_generate]
    )
    if code != 0:
        sys.exit(code)
    for path in sorted(made.rglob("*.py")):
        response.file.add(name=str(path.relative_to(made)), content=path.read_text())
sys.stdout.buffer.write(response.SerializeToString())
