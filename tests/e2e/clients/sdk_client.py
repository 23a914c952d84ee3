"""SDKs that read streams, run directly and through the proxy: what they make of it, as JSON.

python sdk_client.py openai|sse BASE_URL KEY
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable


def use_openai(base: str, key: str) -> object:
    import openai

    client = openai.OpenAI(base_url=base, api_key=key, max_retries=0)
    ask = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    whole = client.chat.completions.create(**ask)  # type: ignore[call-overload]
    stream = client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
    chunks = [chunk.model_dump() for chunk in stream]
    try:
        client.models.retrieve("no-such-model")
    except openai.NotFoundError as error:
        missing = [error.status_code, error.code, str(error)]
    return {"whole": whole.model_dump(), "chunks": chunks, "missing": missing}


def use_sse(base: str, key: str) -> object:
    import httpx
    from httpx_sse import connect_sse

    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client() as client, connect_sse(client, "GET", base, headers=headers) as source:
        return [[e.event, e.data, e.id, e.retry] for e in source.iter_sse()]


USES: dict[str, Callable[[str, str], object]] = {"openai": use_openai, "sse": use_sse}

if __name__ == "__main__":
    name, base, key = sys.argv[1:]
    print(json.dumps(USES[name](base, key)))
