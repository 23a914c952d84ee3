"""Every bound of the proxy, in one place, each with its unit in its name and its default.

They are the wall against a client that sends too much, too slowly or too often.
`config/coatcheck.yaml` sets them under ``limits:``, the environment as ``COATCHECK_LIMITS_NAME``.
What a limit means and which values make sense stand beside it, since the settings file's errors
and schema are made from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def _bound[N: (int, float)](default: N, least: N, most: N, doc: str) -> Any:
    return field(default=default, metadata={"least": least, "most": most, "doc": doc})


@dataclass(frozen=True, slots=True)
class Limits:
    """All are inclusive upper bounds."""

    head_bytes: int = _bound(64 * KIB, KIB, MIB, "a request or response head")
    head_fields: int = _bound(100, 10, 10_000, "fields in one head")
    target_bytes: int = _bound(16 * KIB, 256, MIB, "the target in a request line")
    body_buffer_bytes: int = _bound(
        1 * MIB, 0, 64 * MIB, "a request body up to this is read whole, a larger one streams"
    )
    body_buffer_total_bytes: int = _bound(
        128 * MIB, 0, 64 * GIB, "all bodies that are being read whole, in one process; more stream"
    )
    decoded_body_bytes: int = _bound(GIB, KIB, 1024 * GIB, "a coded body, once decoded")
    decoded_ratio: int = _bound(200, 2, 10_000, "decoded size over coded size, after the first MiB")
    placeholders_per_request: int = _bound(64, 1, 10_000, "placeholders in one request")
    websocket_message_bytes: int = _bound(
        1 * MIB, KIB, 64 * MIB, "a text message from a client over a WebSocket"
    )
    expanded_bytes: int = _bound(64 * MIB, KIB, GIB, "all values put into one request")
    connect_timeout_s: float = _bound(10.0, 0.1, 3600.0, "name resolution and TCP")
    tls_handshake_timeout_s: float = _bound(10.0, 0.1, 3600.0, "TLS handshake, on either side")
    head_timeout_s: float = _bound(30.0, 0.1, 3600.0, "a head, from its first byte to its last")
    idle_timeout_s: float = _bound(
        120.0, 0.1, 86_400.0, "a connection without a byte on either side"
    )
    websocket_idle_timeout_s: float = _bound(
        600.0, 0.1, 86_400.0, "an open WebSocket without a byte on either side"
    )
    websocket_hold_ms: int = _bound(
        10, 0, 1000, "how long a server's message waits for the next, to be searched with it"
    )
    response_timeout_s: float = _bound(
        300.0, 0.1, 86_400.0, "from the end of the request to the head of the response"
    )
    request_timeout_s: float = _bound(
        3600.0, 0.1, 604_800.0, "a request, from its first byte to the last of its body"
    )
    connections: int = _bound(8192, 1, 1_000_000, "connections of all clients, in one process")
    connections_per_client: int = _bound(
        1024,
        1,
        1_000_000,
        "connections of one client, and those of one address yet unknown, in one process",
    )
    upstream_idle_s: float = _bound(
        15.0, 0.0, 3600.0, "how long an upstream connection rests for its client's next; 0: never"
    )
    upstream_idle_connections: int = _bound(
        256, 0, 1_000_000, "upstream connections that rest, of all clients, in one process"
    )
    upstream_idle_per_client: int = _bound(
        32, 0, 1_000_000, "upstream connections that rest for one client, in one process"
    )
    certificates: int = _bound(
        1024, 16, 1_000_000, "certificates kept for hosts that clients name; the oldest goes first"
    )
    audit_field_chars: int = _bound(
        512, 64, 64 * KIB, "a text in an audit line that a client chose; the rest is cut off"
    )
    audit_file_mib: int = _bound(
        256, 0, 1 << 20, "a file of the audit log, in MiB; then a new one begins. 0: never"
    )
    audit_keep_days: float = _bound(
        0.0, 0.0, 36_500.0, "how long a full file of the audit log is kept; 0: for ever"
    )
    audit_keep_files: int = _bound(
        0, 0, 1_000_000, "full files kept of each worker's audit log; the oldest goes first. 0: all"
    )
    log_field_chars: int = _bound(
        1024, 64, 64 * KIB, "a field of a line in the log; the rest is cut off"
    )
    trace_queue_spans: int = _bound(
        2048, 1, 1_000_000, "spans that wait for the collector, in one process; the rest is dropped"
    )
    store_poll_ms: int = _bound(250, 10, 1000, "between two looks whether the store has changed")
    store_stale_s: float = _bound(
        300.0, 0.0, 86_400.0, "how long what was read of the store is used when it cannot be read"
    )
    retired_grace_s: float = _bound(
        86_400.0, 0.0, 31_536_000.0, "how long a replaced value is still scrubbed"
    )
    admin_body_bytes: int = _bound(
        4 * MIB,
        64 * KIB,
        32 * MIB,
        "a request body of the admin side",
    )
    admin_session_idle_s: float = _bound(
        1800.0, 10.0, 604_800.0, "a session of the admin page without a request"
    )
    admin_session_s: float = _bound(
        43_200.0, 10.0, 2_592_000.0, "a session of the admin page, from log-in on"
    )
