"""What texts, times and pictures become."""

from __future__ import annotations

import base64

import pytest

from coatcheck.admin.activity import Hour, Spark
from coatcheck.admin.policy_service import Error
from coatcheck.admin.ui import show, svg, yamltext
from coatcheck.admin.ui.activity_pages import Named, told
from coatcheck.admin.ui.forms import lines_of, without
from coatcheck.admin.ui.notes import KEPT, Note, Notes
from tests.admin.browser.world import START, line, refused, scrubbed, used
from tests.store.stores import NOW


@pytest.mark.parametrize(
    ("text", "html"),
    [
        pytest.param("a <b> & 'c'", "<bdi>a &lt;b&gt; &amp; &#39;c&#39;</bdi>", id="escaped"),
        pytest.param("\u202e", '<bdi><span class="odd">U+202E</span></bdi>', id="an override"),
        pytest.param("\n", '<bdi><span class="odd">U+000A</span></bdi>', id="a line end"),
        pytest.param("\ud800", '<bdi><span class="odd">U+D800</span></bdi>', id="half a character"),
        pytest.param("grüße 你好 שלום", "<bdi>grüße 你好 שלום</bdi>", id="letters of all kinds"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(text: str, html: str) -> None:
    assert show.shown(text) == html


def test_line_ends_stay_where_they_may() -> None:
    assert show.shown("a\nb", "\n") == "<bdi>a\nb</bdi>"


def test_a_label_spells_it_out_too() -> None:
    assert show.shown_plain("a\u202eb") == "a⟨U+202E⟩b"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        pytest.param(5, "just now", id="seconds"),
        pytest.param(130, "2 min ago", id="minutes"),
        pytest.param(7300, "2 h ago", id="hours"),
        pytest.param(200_000, "2 d ago", id="days"),
        pytest.param(40 * 86400, "2023-10-05 22:13", id="a date, when it is long ago"),
        pytest.param(-500, "2023-11-14 22:21", id="a date, when a clock is wrong"),
    ],
)
def test_how_long_ago(before: float, words: str) -> None:
    assert f">{words}</time>" in show.ago(NOW - before, NOW)


def test_never_is_said() -> None:
    assert "never" in show.ago(None, NOW)
    assert "never" in show.moment(None)


def test_a_time_that_is_none_is_shown_as_it_is() -> None:
    assert show.moment("<yesterday>") == "<bdi>&lt;yesterday&gt;</bdi>"


def test_a_spark_line_says_in_words_what_it_shows() -> None:
    drawn = svg.spark(Spark([0, 3, 1], [0, 0, 2]))

    assert 'aria-label="4 uses and 2 refusals in 3 hours"' in drawn
    assert (drawn.count('"bar-use"'), drawn.count('"bar-refusal"')) == (2, 1)
    assert "style" not in drawn


@pytest.mark.parametrize("found", [None, Spark([0, 0], [0, 0])], ids=["unknown", "nothing"])
def test_no_spark_line_of_nothing(found: Spark | None) -> None:
    assert "none" in svg.spark(found)


def test_a_rare_refusal_is_seen_beside_many_injections() -> None:
    drawn = svg.chart([Hour(START, injections=100_000, refusals=1), Hour(START)])

    assert 'aria-label="100,000 injections, 0 scrubs and 1 refusal in the last 2 hours"' in drawn
    assert 'class="bar-refusal" x="0" y="2.0" width="3" height="1.0"' in drawn


def test_a_policy_in_colours_is_still_its_text() -> None:
    (row,) = yamltext.lines('  - in: ["a<b", 4]  # why\n')

    assert '<span class="y-key">in</span>' in row.html
    assert '<span class="y-text">&#34;a&lt;b&#34;</span>' in row.html
    assert '<span class="y-word">4</span>' in row.html
    assert '<span class="y-comment"># why</span>' in row.html
    assert row.html.striptags() == '- in: ["a<b", 4] # why'


def test_a_mistake_stands_at_its_line() -> None:
    wrong = Error(2, 1, "is not known", "leave it out")
    rows = yamltext.lines("a: 1\nb: 2\n", [wrong])

    assert [list(row.errors) for row in rows] == [[], [wrong]]


@pytest.mark.parametrize(
    ("more", "kind", "named"),
    [
        pytest.param(used("a"), "injected", [Named("a", "header:authorization")], id="injected"),
        pytest.param({"secrets": []}, "passed", [], id="nothing to inject"),
        pytest.param(refused("x", "a"), "refused", [Named("a", "")], id="refused"),
        pytest.param(
            scrubbed("a"), "scrubbed", [Named("a", "base64 in body, 2 times")], id="scrub"
        ),
        pytest.param({"secrets": ["?"], "host": 7}, "passed", [], id="a line that is none of ours"),
        pytest.param({"event": "admin", "action": "x"}, "managed", [], id="managed"),
        pytest.param(
            {"event": "admin", "action": "x", "decision": "failed"}, "failed", [], id="failed"
        ),
    ],
)
def test_a_line_of_the_log_is_told(more: dict[str, object], kind: str, named: list[Named]) -> None:
    found = told(line(0, **more))

    assert (found.kind, list(found.secrets)) == (kind, named)


def test_a_port_is_told_where_it_is_not_the_usual_one() -> None:
    assert told(line(0)).target == "GET api.crm.example.com/v1/contacts"
    assert told(line(0, port=8443)).target == "GET api.crm.example.com:8443/v1/contacts"


def test_lines_and_commas_part() -> None:
    assert lines_of(" a ,b\r\n\r\n c\n,") == ["a", "b", "c"]


@pytest.mark.parametrize("value", ["hush", " hush\n"], ids=["as it is", "with white space"])
def test_a_field_that_holds_the_value_is_not_shown_again(value: str) -> None:
    assert list(without(value, "is hush!", "other")) == ["", "other"]


HUSH = "hush-2718281828"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        pytest.param(HUSH, base64.b64encode(HUSH.encode()).decode(), id="base64 of it"),
        pytest.param(HUSH, f"see {HUSH.encode().hex()}", id="in hexadecimal"),
        pytest.param(base64.b64encode(HUSH.encode()).decode(), HUSH, id="it was given in base64"),
    ],
)
def test_nor_one_that_holds_another_spelling_of_it(value: str, field: str) -> None:
    assert list(without(value, field, "other")) == ["", "other"]


def test_without_a_value_all_fields_are_shown_again() -> None:
    assert list(without("", "a", "b")) == ["a", "b"]


def test_a_note_is_said_once_and_to_whom_it_is_for() -> None:
    notes = Notes()
    notes.leave("mine", Note("Saved:"))

    assert notes.take("other") is None
    assert notes.take("mine") == Note("Saved:")
    assert notes.take("mine") is None


def test_notes_that_nobody_takes_do_not_pile_up() -> None:
    notes = Notes()
    for number in range(KEPT + 1):
        notes.leave(str(number), Note("x"))

    assert notes.take("0") is None
    assert notes.take(str(KEPT)) is not None
