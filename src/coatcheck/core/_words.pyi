from typing import Any

def places(
    text: bytes,
    start: int,
    words: int,
    size: int,
    table: Any,
    shift: int,
    fold: int,
    factor: int,
    kinds: int,
    out: Any,
    /,
) -> int: ...
