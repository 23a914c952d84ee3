"""Whether a text that everybody may read holds a value, in whatever spelling."""

from __future__ import annotations

import base64

import pytest

from coatcheck.core.shown import SEARCHED, holding

VALUE = b"sk-live-0123456789abcdef"


@pytest.mark.parametrize(
    ("value", "text", "holds"),
    [
        pytest.param(VALUE, VALUE.decode(), True, id="as it is"),
        pytest.param(VALUE, f"the key is {VALUE.decode()}.", True, id="in a sentence"),
        pytest.param(VALUE, VALUE.hex(), True, id="in hexadecimal"),
        pytest.param(VALUE + b"\n", VALUE.decode(), True, id="without its line end"),
        pytest.param(base64.b64encode(VALUE), VALUE.decode(), True, id="its base64 taken off"),
        pytest.param(
            b"k" * SEARCHED + b"k", "k" * (SEARCHED + 1), True, id="a large one, as it is"
        ),
        pytest.param(VALUE, VALUE[:-1].decode(), False, id="a part of it"),
        pytest.param(VALUE, "of the CRM", False, id="another text"),
        pytest.param(VALUE, "", False, id="nothing"),
        pytest.param(b" ", "of the CRM", True, id="a blank is in many a text"),
    ],
)
def test_a_text_holds_a_value(value: bytes, text: str, holds: bool) -> None:
    assert holding(value, "nothing", text) == [False, holds]
