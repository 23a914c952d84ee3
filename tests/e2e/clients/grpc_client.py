"""One call of gRPC, with the placeholder in its metadata; prints what the application is told.

    python grpc_client.py HOST:PORT PLACEHOLDER tls|plain

gRPC finds the proxy and the roots by itself (`https_proxy`, `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`).
"""

from __future__ import annotations

import json
import sys

import grpc


def main(target: str, key: str, kind: str) -> None:
    secure = kind == "tls"
    channel = (
        grpc.secure_channel(target, grpc.ssl_channel_credentials())
        if secure
        else grpc.insecure_channel(target)
    )
    call = channel.unary_unary("/coat.Check/Hand")
    said = ["OK", ""]
    try:
        call(b"", timeout=10, metadata=[("authorization", f"Bearer {key}")])
    except grpc.RpcError as error:
        said = [error.code().name, error.details()]
    print(json.dumps({"version": grpc.__version__, "said": said}))


if __name__ == "__main__":
    main(*sys.argv[1:])
