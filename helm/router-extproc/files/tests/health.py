"""Is the sidecar ready? Asks what Envoy and the kubelet ask."""

import sys

from channel import connect
from grpc_health.v1 import health_pb2, health_pb2_grpc

with connect(*sys.argv[1:]) as channel:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10, wait_for_ready=True)
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        print(f"{service or '(empty)'}: {name}")
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            sys.exit(1)
