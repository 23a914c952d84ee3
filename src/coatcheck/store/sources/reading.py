"""What every adapter does with an answer, and with what went wrong on the way to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from coatcheck.store.sources.port import Failure, SourceError


@contextmanager
def in_our_words(judge: Callable[[Exception], Failure]) -> Iterator[None]:
    """Whatever goes wrong inside comes out as a `SourceError`, as *judge* takes it.

    A library's words, and the error behind an error, may hold anything.
    """
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(judge(error)) from None


def by_kind(error: BaseException, kinds: Iterable[tuple[type[Exception], Failure]]) -> Failure:
    """What the first of *kinds* that *error* is comes to; ODD where it is none of them."""
    return next((failure for kind, failure in kinds if isinstance(error, kind)), Failure.ODD)


def field_of(text: str | bytes, field: str) -> bytes:
    """The value of *field* in the JSON object that *text* is.

    Raises:
        SourceError: NO_FIELD or NOT_TEXT.
    """
    try:
        data = json.loads(text)
    except ValueError:
        raise SourceError(Failure.NO_FIELD) from None
    if not isinstance(data, dict) or field not in data:
        raise SourceError(Failure.NO_FIELD)
    if not isinstance(data[field], str):
        raise SourceError(Failure.NOT_TEXT)
    return str(data[field]).encode()
