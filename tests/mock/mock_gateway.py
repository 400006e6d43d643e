# SPDX-License-Identifier: Apache-2.0
"""A stock grpcio client that learns the services by reflection."""
import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Gateway:
    """Speaks with an API key, or with what the client certificate PREFIX.crt says."""

    def __init__(self, daemon, key=None, certificate=None):
        prefix = certificate or daemon.folder / "tls/operator"
        ca = (daemon.folder / "tls/ca.crt").read_bytes()
        cert, secret = (prefix.with_name(prefix.name + end).read_bytes() for end in (".crt", ".key"))
        self.channel = grpc.secure_channel(daemon.ready["grpc"], grpc.ssl_channel_credentials(ca, secret, cert),
                                           [("grpc.ssl_target_name_override", "localhost")])
        self.pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.metadata = [("authorization", "Bearer " + key)] if key else []

    def call(self, service, name, kind="unary_unary", **fields):
        method = self.pool.FindServiceByName("phalanx.v1." + service).methods_by_name[name]
        request = message_factory.GetMessageClass(method.input_type)(**fields)
        answer = message_factory.GetMessageClass(method.output_type)
        call = getattr(self.channel, kind)(f"/phalanx.v1.{service}/{name}",
                                           request_serializer=lambda m: m.SerializeToString(),
                                           response_deserializer=answer.FromString)
        return call(request, metadata=self.metadata, timeout=10)

    def admit(self, **fields):
        fields = {"model": "demo", "max_input_tokens": 100, "max_output_tokens": 50, "request_digest": bytes(32),
                  **fields}
        return self.call("Admission", "Admit", **fields)

    def close(self):
        self.channel.close()
