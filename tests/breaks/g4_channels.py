"""G4, and what of G3, G5 and G6 belongs to them: the channels beside head and body."""

from __future__ import annotations

from tests.breaks.change import Break

_LANE = "tests/engine/test_lane.py::"
_SOCKET = "tests/engine/test_websocket_lane.py::"
_FRAMES = "tests/core/test_websocket.py::"
_SCRUB = "tests/core/test_websocket_scrub.py::"

BREAKS = (
    Break(
        "interim",
        "Interim answers go through to the client as they came.",
        "engine/answer.py",
        "        clean = self._exchange.interim(head)\n",
        "        clean = head\n",
        (_LANE + "test_interim_answers_come_before_the_final_one",),
    ),
    Break(
        "interim-endless",
        "An upstream may send interim answers for ever.",
        "engine/answer.py",
        "            if self._interim > MAX_INTERIM:",
        "            if self._interim < 0:",
        (_LANE + "test_endless_interim_answers_are_no_answer",),
    ),
    Break(
        "trailers",
        "Trailers go through to the client as they came.",
        "engine/answer.py",
        "        return self._exchange.trailers(trailers(fields, self._head_fields))",
        "        return trailers(fields, self._head_fields)",
        (_LANE + "test_trailers_of_an_answer",),
    ),
    Break(
        "trailers-of-the-head",
        "A trailer may be any field, one that belongs into the head too.",
        "engine/answer.py",
        "        return self._exchange.trailers(trailers(fields, self._head_fields))",
        "        return self._exchange.trailers(fields)",
        (_LANE + "test_trailers_of_an_answer",),
    ),
    Break(
        "101",
        "A 101 changes the protocol whatever else stands in it.",
        "engine/answer.py",
        "        if self._key is None or not websocket.accepts(head, self._key):",
        "        if self._key is None:",
        (_SOCKET + "test_a_switch_that_is_not_right_is_withheld",),
    ),
    Break(
        "101-unasked",
        "A 101 changes the protocol though nobody asked for it.",
        "engine/answer.py",
        "        if self._key is None or not websocket.accepts(head, self._key):",
        "        if self._key is not None and not websocket.accepts(head, self._key):",
        (_LANE + "test_an_answer_that_cannot_be_read_is_withheld_without_a_byte_of_it",),
    ),
    Break(
        "websocket-extension",
        "A WebSocket may be compressed, and is searched as if it were not.",
        "core/websocket.py",
        '        and not head.all(b"sec-websocket-extensions")\n',
        "",
        (_SOCKET + "test_a_switch_that_is_not_right_is_withheld",),
    ),
    Break(
        "websocket-mask",
        "A client's frame may be without a mask.",
        "core/websocket.py",
        "        if bool(second & _MASKED) is not self._masked:",
        "        if second < 0:",
        (_SOCKET + "test_a_client_that_breaks_the_protocol_is_cut_off",),
    ),
    Break(
        "websocket-search",
        "Messages are not searched.",
        "core/websocket_scrub.py",
        "        self._data.search(searches)\n",
        "",
        (_SOCKET + "test_a_message_is_searched",),
    ),
    Break(
        "websocket-control",
        "Pings and the reason of a close are not searched.",
        "core/websocket_scrub.py",
        "        self._control.search(searches)\n",
        "",
        (_SOCKET + "test_control_frames_are_searched",),
    ),
    Break(
        "websocket-fragments",
        "A message of a client is read fragment by fragment.",
        "opensocket.py",
        '        if not part.ends:\n            yield b""\n            return\n        message',
        "        message",
        (_SOCKET + "test_a_placeholder_in_fragments_is_one",),
    ),
    Break(
        "websocket-bound",
        "A message of a client may be of any size.",
        "opensocket.py",
        "        if len(self._text) + len(part.payload)"
        " > self._gateway.limits.websocket_message_bytes:",
        "        if self._text is None:",
        (_SOCKET + "test_a_message_that_must_not_leave_ends_it",),
    ),
    Break(
        "websocket-record",
        "A value leaves in a message without an audit record.",
        "opensocket.py",
        "            self._write(audit.injected(now, self._facts, uses, self._mask))\n",
        "            str(now)\n",
        (_SOCKET + "test_nothing_leaves_without_its_record",),
    ),
    Break(
        "websocket-policy",
        "A WebSocket goes on by the policy that it was opened under.",
        "opensocket.py",
        "        if new is self._snapshot:\n",
        "        if new is not None:\n",
        (_SOCKET + "test_a_change_of_policy_acts_on_what_is_open",),
    ),
    Break(
        "websocket-roaming",
        "A secret for any host is not searched for once a message has put it in.",
        "opensocket.py",
        "                self._names |= filling.names\n                self._search()\n",
        "                self._names |= filling.names\n",
        (_SOCKET + "test_a_secret_for_any_host_is_searched_for_once_it_was_put_in",),
    ),
    Break(
        "websocket-hold-back",
        "Complete messages are let go at once, so that a value in two of them gets through.",
        "core/websocket_scrub.py",
        '        return b"".join([*out, self._let_go(self._data.take())])',
        '        return b"".join([*out, self._let_go(self._data.take_all())])',
        (_SOCKET + "test_a_value_in_two_messages_is_in_neither",),
    ),
)
