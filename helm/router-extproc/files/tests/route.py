"""Does the sidecar route? One exchange as Envoy would have it; the answer must name a cluster."""

import json
import sys

from channel import connect
from router_extproc.pb import ext_proc_pb2 as pb
from router_extproc.pb import ext_proc_pb2_grpc

target, model, *tls = sys.argv[1:]
body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).encode()
headers = {
    ":method": "POST",
    ":path": "/v1/chat/completions",
    ":authority": "test",
    "content-type": "application/json",
    "content-length": str(len(body)),
}
requests = [
    pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(
            headers=pb.HeaderMap(headers=[pb.HeaderValue(key=k, raw_value=v.encode()) for k, v in headers.items()])
        ),
        protocol_config=pb.ProtocolConfiguration(
            request_body_mode=pb.STREAMED, send_body_without_waiting_for_header_response=True
        ),
    ),
    pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True)),
]
with connect(target, *tls) as channel:
    replies = ext_proc_pb2_grpc.ExternalProcessorStub(channel).Process(iter(requests), timeout=30, wait_for_ready=True)
    first = next(iter(replies))
    replies.cancel()  # or the thread that reads the rest may keep the process
changed = {
    h.header.key: h.header.raw_value.decode() for h in first.request_headers.response.header_mutation.set_headers
}
print(changed or first)
sys.exit(0 if changed.get("x-mom-cluster") and changed.get("x-mom-model") else 1)
