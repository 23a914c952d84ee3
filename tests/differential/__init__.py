"""What we understood is what the other side parses: the same bytes, read by others' parsers.

This mirrors nothing in `src`: the promise is kept by `engine/http1`, the lane and the gateway
together, and only somebody else's parser can say whether it is kept. Three read what a lane writes
upstream: h11, node's http server (llhttp) and nginx. Two read what a client gets: h11 and node's
http client. Each table says of its cases whether they pass; whatever passes must be read by every
reader exactly as the gateway saw it, request by request, and no reader may find one request more.

- `lanes` drives a lane and keeps what the gateway let out;
- `readers` and `clients` are the parsers; node and nginx are started once a session, on sockets in
  a temporary folder, and are left out where they are not installed;
- `heads`, `framing` and `answers` are the tables.
"""
