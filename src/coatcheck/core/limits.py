"""Every bound of the proxy, in one place, each with its unit in its name and its default.

They are the wall against a client that sends too much, too slowly or too often (THREATS T12).
`config/coatcheck.yaml` sets them under ``limits:``, the environment as ``COATCHECK_LIMITS_NAME``.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """See each field's comment; all are inclusive upper bounds."""

    head_bytes: int = 64 * KIB  # a request or response head
    head_fields: int = 100  # fields in one head
    target_bytes: int = 16 * KIB  # the target in a request line
    body_buffer_bytes: int = 1 * MIB  # a request body up to this is read whole, larger ones stream
    decoded_body_bytes: int = 1024 * MIB  # a coded body, once decoded
    decoded_ratio: int = 200  # decoded size over coded size, after the first MiB
    placeholders_per_request: int = 64
    expanded_bytes: int = 64 * MIB  # all values put into one request
    connect_timeout_s: float = 10.0  # name resolution and TCP
    tls_handshake_timeout_s: float = 10.0  # on either side
    head_timeout_s: float = 30.0  # a head, from its first byte to its last
    idle_timeout_s: float = 120.0  # a connection without a byte on either side
    response_timeout_s: float = 300.0  # from the request's end to the response head
    store_poll_ms: int = 250  # how often a worker asks whether the store has changed
    retired_grace_s: float = 86400.0  # how long a replaced value is still scrubbed
