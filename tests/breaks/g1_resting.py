"""G1 and G4: upstream connections that rest for a client's next, and sessions that are resumed."""

from __future__ import annotations

from tests.breaks.change import Break

_RESTING = "tests/engine/test_resting.py::"
_POOL = "tests/engine/test_pool.py::"
_SESSIONS = "tests/engine/test_sessions.py::"

BREAKS = (
    Break(
        "resting-client",
        "A connection that one client has left goes to another.",
        "engine/lane.py",
        "Purpose(self._who, self._address,",
        'Purpose("", self._address,',
        (_RESTING + "test_a_connection_serves_one_client",),
    ),
    Break(
        "resting-address",
        "It goes to another machine of a client that is a network.",
        "engine/lane.py",
        "Purpose(self._who, self._address,",
        'Purpose(self._who, "",',
        (_RESTING + "test_it_is_left_for_the_same_client_address_destination_and_policy",),
    ),
    Break(
        "resting-policy",
        "It is used on under a policy that may not let anybody go to its address.",
        "engine/pool.py",
        "        if policy != self._seen:",
        "        if policy != policy:",
        (_POOL + "test_another_policy_ends_all",),
    ),
    Break(
        "resting-byte",
        "A byte that comes while a connection rests leaves it in use.",
        "engine/pool.py",
        "        self._pool.drop(self)\n        channel.abort()\n",
        "        return\n",
        (_POOL + "test_a_byte_while_it_rests_is_the_end_of_it",),
    ),
    Break(
        "resting-look",
        "What has come in this turn of the event loop is not seen.",
        "engine/pool.py",
        " or not resting.channel.is_silent():",
        ":",
        (_POOL + "test_what_nobody_has_read_yet_is_seen_when_it_is_taken",),
    ),
    Break(
        "resting-body",
        "A connection that has carried a body rests for others.",
        "engine/lane.py",
        "job.plain = framing.empty and key is None",
        "job.plain = key is None",
        (_RESTING + "test_a_connection_is_closed_after",),
    ),
    Break(
        "resting-ntlm",
        "A connection that authenticates itself rests for others.",
        "engine/lane.py",
        " and not authenticates_connection(fields)",
        "",
        (_RESTING + "test_a_connection_is_closed_after",),
    ),
    Break(
        "resting-challenge",
        "So does one in the middle of an authentication.",
        "engine/lane.py",
        "answer.told_its_end and not answer.asked_for_credentials",
        "answer.told_its_end",
        (_RESTING + "test_a_connection_is_closed_after",),
    ),
    Break(
        "resting-end",
        "So does one whose answer did not tell its end.",
        "engine/lane.py",
        "answer.told_its_end and not answer.asked_for_credentials",
        "not answer.asked_for_credentials",
        (_RESTING + "test_a_connection_is_closed_after",),
    ),
    Break(
        "resting-for-ever",
        "One good request makes good what an earlier one forbids.",
        "engine/lane.py",
        "self._rests = self._plain and job.plain",
        "self._rests = job.plain",
        (_RESTING + "test_what_forbids_it_forbids_it_for_ever",),
    ),
    Break(
        "resting-searched-apart",
        "A late answer may come out where its value is not searched for.",
        "engine/lane.py",
        "    return good and not job.exchange.is_searched_apart",
        "    return good",
        (_RESTING + "test_a_late_answer_would_be_searched_for_what_was_sent",),
    ),
    Break(
        "resting-post",
        "A POST goes over a connection whose end could have it sent twice, or not at all.",
        "engine/lane.py",
        "        safe = job.plain and job.sent is not None",
        "        safe = job.plain",
        (_RESTING + "test_a_connection_is_taken_over_by",),
    ),
    Break(
        "session-port",
        "A session is resumed at another port than the one that was verified.",
        "engine/sessions.py",
        "        kept = self._of.get((host, port))",
        "        kept = next((of for (name, _), of in self._of.items() if name == host), None)",
        (_SESSIONS + "test_a_session_is_for_its_own_port",),
    ),
    Break(
        "session-life",
        "A certificate that was verified once is good for ever.",
        "engine/sessions.py",
        "            if self.now() - session.verified.at <= LIFE_S:",
        "            if session.verified:",
        (_SESSIONS + "test_a_proof_has_its_time",),
    ),
    Break(
        "session-renewed",
        "Each connection that resumes a session makes the proof young again.",
        "engine/dialer.py",
        "        if session is not None and channel.tls.session_reused:",
        "        if not channel.tls:",
        (_SESSIONS + "test_a_proof_has_its_time",),
    ),
    Break(
        "session-once",
        "A session is resumed again and again.",
        "engine/sessions.py",
        "            session = kept.pop()",
        "            session = kept[-1]",
        (_SESSIONS + "test_a_session_is_used_once",),
    ),
)
