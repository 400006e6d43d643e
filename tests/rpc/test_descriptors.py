# SPDX-License-Identifier: Apache-2.0
"""The protos may only grow: what descriptors.txt lists must stay as it is, on the wire and by name.

After adding something: python3 tests/rpc/test_descriptors.py > tests/rpc/descriptors.txt
"""
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "rpc/proto"
Field = descriptor_pb2.FieldDescriptorProto


def message_lines(prefix, message):
    name = f"{prefix}.{message.name}"
    for field in message.field:
        kind = field.type_name or Field.Type.Name(field.type)[5:].lower()
        label = "repeated" if field.label == Field.LABEL_REPEATED else "single"
        group = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else "-"
        yield f"field {name}.{field.name} {field.number} {kind} {label} {group}"
    for nested in message.nested_type:
        yield from message_lines(name, nested)
    for enum in message.enum_type:
        yield from enum_lines(name, enum)


def enum_lines(prefix, enum):
    for value in enum.value:
        yield f"enum {prefix}.{enum.name}.{value.name} {value.number}"


def describe():
    files = sorted(str(p.relative_to(PROTOS)) for p in PROTOS.rglob("*.proto"))
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", f"--proto_path={PROTOS}", f"--descriptor_set_out={out.name}", *files], check=True)
        found = descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes())
    lines = []
    for file in found.file:
        for message in file.message_type:
            lines += message_lines(file.package, message)
        for enum in file.enum_type:
            lines += enum_lines(file.package, enum)
        for service in file.service:
            for m in service.method:
                stream = f"{'stream' if m.client_streaming else 'one'}>{'stream' if m.server_streaming else 'one'}"
                lines.append(f"method {file.package}.{service.name}.{m.name} {m.input_type} {m.output_type} {stream}")
    return sorted(lines)


def golden():
    return (Path(__file__).parent / "descriptors.txt").read_text().splitlines()


def test_nothing_was_renamed_renumbered_or_removed():
    gone = set(golden()) - set(describe())
    assert not gone, "changed or removed:\n" + "\n".join(sorted(gone))


def test_additions_are_written_down():
    new = set(describe()) - set(golden())
    assert not new, "run this file to write descriptors.txt again; new:\n" + "\n".join(sorted(new))


if __name__ == "__main__":
    sys.stdout.write("\n".join(describe()) + "\n")
