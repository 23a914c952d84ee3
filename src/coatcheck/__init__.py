"""An outbound forward proxy that swaps placeholders for secrets at the allowed destination."""

__version__ = "0.1.0.dev0"
