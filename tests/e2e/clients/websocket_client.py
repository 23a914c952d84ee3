"""As python_client.py, with `websockets`: a placeholder in each place of the handshake.

python websocket_client.py BASE_URL PLACEHOLDER
"""

from __future__ import annotations

import base64
import json
import sys
from importlib import metadata

from websockets.sync.client import connect


def main(base: str, key: str) -> None:
    base = base.replace("https:", "wss:")
    token = base64.b64encode(f"user:{key}".encode()).decode()
    requests: dict[str, tuple[str, dict[str, str]]] = {
        "header": (f"{base}/header", {"Authorization": f"Bearer {key}"}),
        "basic": (f"{base}/basic", {"Authorization": f"Basic {token}"}),
        "query": (f"{base}/query?b=1+2&key={key}", {}),  # goes out as it is
        "path": (f"{base}/path/{key}/x", {}),
    }
    results = {}
    for place, (url, headers) in requests.items():
        with connect(url, additional_headers=headers) as socket:
            results[place] = (200, socket.recv())
    print(json.dumps({"version": metadata.version("websockets"), "results": results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
