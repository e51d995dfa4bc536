"""Our trimmed protos against Envoy's own, which live in a venv of their own: both packages are called `envoy`. What is
not published yet is read from the Envoy that we ship for."""

import json
import mmap
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from router_extproc.pb import access_log_pb2, ext_proc_pb2

XDS_PYTHON = Path(__file__).parents[2] / ".venv-xds" / "bin" / "python"

# Runs beside xds-protos. Prints {message: {number: [name, type, repeated, target message]}} and the service paths.
PROBE = """
import json
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.accesslog.v3 import als_pb2 as als
from envoy.data.accesslog.v3 import accesslog_pb2 as entries
from envoy.config.core.v3 import base_pb2 as base
from envoy.type.v3 import http_status_pb2 as status
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2 as mode

messages = {}
def add(descriptor):
    messages[descriptor.name] = {
        f.number: [f.name, f.type, f.is_repeated, f.message_type.name if f.message_type else None]
        for f in descriptor.fields
    }
    for nested in descriptor.nested_types:
        add(nested)
for module in (ext_proc, als, entries, base, status):
    for descriptor in module.DESCRIPTOR.message_types_by_name.values():
        add(descriptor)
services = {
    s.full_name: {
        m.name: [m.input_type.name, m.output_type.name, m.client_streaming, m.server_streaming] for m in s.methods
    }
    for s in (*ext_proc.DESCRIPTOR.services_by_name.values(), *als.DESCRIPTOR.services_by_name.values())
}
modes = dict(mode.ProcessingMode.BodySendMode.items())
actions = dict(base.HeaderValueOption.HeaderAppendAction.items())
methods = dict(base.RequestMethod.items())
enums = {"modes": modes, "actions": actions, "methods": methods}
print(json.dumps({"messages": messages, "services": services, **enums}))
"""

# HttpStatus.code is an enum of Envoy's whose numbers are the status codes; int32 has the same encoding.
SAME_ENCODING = {FieldDescriptor.TYPE_ENUM: FieldDescriptor.TYPE_INT32}
# Not in xds-protos 1.85.
NOT_PUBLISHED = {"TokenUsage", "InputTokenDetails"}


@pytest.fixture(scope="module")
def envoy() -> dict[str, dict[str, object]]:
    out = subprocess.run([XDS_PYTHON, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60).stdout
    result: dict[str, dict[str, object]] = json.loads(out)
    return result


def ours() -> list[Descriptor]:
    found: list[Descriptor] = []

    def add(descriptor: Descriptor) -> None:
        if not descriptor.GetOptions().map_entry and descriptor.name not in NOT_PUBLISHED:
            found.append(descriptor)
        for nested in descriptor.nested_types:
            add(nested)

    for module in (ext_proc_pb2, access_log_pb2):
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            add(descriptor)
    return found


@pytest.mark.parametrize("descriptor", ours(), ids=lambda descriptor: descriptor.name)
def test_every_field_has_envoys_number_type_and_name(
    descriptor: Descriptor, envoy: dict[str, dict[str, object]]
) -> None:
    theirs = envoy["messages"][descriptor.name]
    assert isinstance(theirs, dict)
    for field in descriptor.fields:
        name, kind, repeated, target = theirs[str(field.number)]
        assert (field.name, field.is_repeated) == (name, repeated)
        assert field.type in (kind, SAME_ENCODING.get(kind))
        assert (field.message_type.name if field.message_type else None) == target


def test_token_usage_is_what_the_shipped_envoy_writes() -> None:
    """The binary holds its descriptors, serialised."""
    name = b"envoy/data/ai/v3/token_usage.proto"
    path = Path(str(files("envoy") / "_bin" / "envoy"))
    with path.open("rb") as binary, mmap.mmap(binary.fileno(), 0, prot=mmap.PROT_READ) as content:
        begin = content.find(b"\n" + bytes([len(name)]) + name)
        end = content.find(b"proto3", begin) + len(b"proto3")
        theirs = FileDescriptorProto.FromString(content[begin:end])
    messages = {message.name: message for message in theirs.message_type}
    for descriptor in (access_log_pb2.TokenUsage.DESCRIPTOR, access_log_pb2.InputTokenDetails.DESCRIPTOR):
        numbers = {field.name: field.number for field in messages[descriptor.name].field}
        types = {field.name: field.type for field in messages[descriptor.name].field}
        assert {field.name: field.number for field in descriptor.fields}.items() <= numbers.items()
        assert {field.name: field.type for field in descriptor.fields}.items() <= types.items()
    [status] = messages["TokenUsage"].enum_type
    assert dict(access_log_pb2.TokenUsage.ExtractionStatus.items()) == {v.name: v.number for v in status.value}


def test_services_have_envoys_paths_and_directions(envoy: dict[str, dict[str, object]]) -> None:
    services = {
        service.full_name: {
            method.name: [
                method.input_type.name,
                method.output_type.name,
                method.client_streaming,
                method.server_streaming,
            ]
            for method in service.methods
        }
        for module in (ext_proc_pb2, access_log_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert services == envoy["services"]


def test_enums_have_envoys_numbers(envoy: dict[str, dict[str, object]]) -> None:
    assert dict(ext_proc_pb2.BodySendMode.items()) == envoy["modes"]
    assert dict(ext_proc_pb2.HeaderValueOption.HeaderAppendAction.items()) == envoy["actions"]
    assert dict(access_log_pb2.RequestMethod.items()) == envoy["methods"]
