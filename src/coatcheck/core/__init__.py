"""The rules, as pure functions and frozen values: no I/O, no clock, no logging, no mitmproxy.

Whatever decides lives here, so that each rule is tested with a literal. Time, randomness and
everything read from outside come in as arguments. `tests/test_architecture.py` holds the arrows.
"""
