"""The only folder that knows mitmproxy: listeners, connections, TLS, and the HTTP/1.1 lane."""
