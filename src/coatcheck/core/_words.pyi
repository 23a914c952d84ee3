from typing import Any

def places(
    text: bytes,
    start: int,
    words: int,
    size: int,
    table: Any,
    shift: int,
    first: Any,
    sequences: Any,
    all_kinds: int,
    kinds: int,
    most: int,
    out: Any,
    /,
) -> int: ...
