"""G6: an audit record stands before the bytes leave."""

from __future__ import annotations

from tests.breaks.change import Break

_GATEWAY = "tests/test_gateway.py::"
_AUDITLOG = "tests/observe/test_auditlog.py::"

BREAKS = (
    Break(
        "no-record",
        "A request leaves without an audit record.",
        "gateway.py",
        "        self._write(audit.allowed(",
        "        str(audit.allowed(",
        (_GATEWAY + "test_no_audit_record_no_value",),
    ),
    Break(
        "record-afterwards",
        "The audit record is written when the request is over.",
        "gateway.py",
        "        try:\n            self._gateway.log.write(record)\n",
        "        try:\n"
        '            __import__("weakref").finalize(self, self._gateway.log.write, record)\n',
        (
            _GATEWAY + "test_no_audit_record_no_value",
            _GATEWAY + "test_a_value_in_a_streamed_body_is_recorded_before_its_bytes_come_out",
        ),
    ),
    Break(
        "record-fails",
        "A request leaves when its audit record cannot be written.",
        "gateway.py",
        "        except AuditError as error:\n            raise Refused(\n",
        "        except AuditError as error:\n"
        "            if error is None:\n"
        "                raise Refused(\n",
        (_GATEWAY + "test_no_audit_record_no_value",),
    ),
    Break(
        "no-record-of-a-stream",
        "Values in a streamed body leave without an audit record.",
        "gateway.py",
        "                self._write(audit.injected("
        "self._gateway.now(), self._facts, uses, self._mask))\n",
        "",
        (_GATEWAY + "test_a_value_in_a_streamed_body_is_recorded_before_its_bytes_come_out",),
    ),
    Break(
        "no-record-of-a-refusal",
        "A refusal is not recorded.",
        "gateway.py",
        "let_go=self._let_go)\n            self._gateway.log.write(record)\n",
        "let_go=self._let_go)\n            str(record)\n",
        (_GATEWAY + "test_a_refusal_is_recorded_once",),
    ),
    Break(
        "no-record-of-scrubbing",
        "What was taken out of an answer is not recorded.",
        "gateway.py",
        "        if scrubbing.found:\n",
        "        if scrubbing is None:\n",
        (_GATEWAY + "test_what_was_taken_out_of_an_answer_is_recorded_without_a_value",),
    ),
    Break(
        "record-kept-back",
        "An audit line waits in memory for the next one.",
        "observe/auditlog.py",
        "            written = os.write(self._file, line)\n",
        '            self._kept, kept = line, getattr(self, "_kept", b"")\n'
        "            os.write(self._file, kept)\n"
        "            written = len(line)\n",
        (_AUDITLOG + "test_a_record_is_a_line_and_there_at_once",),
    ),
    Break(
        "half-a-line",
        "Half a line in the audit log is as good as a whole one.",
        "observe/auditlog.py",
        "        self._torn = written != len(line)\n",
        "        self._torn = False\n",
        (_AUDITLOG + "test_half_a_line_is_an_error_and_spoils_no_other",),
    ),
    Break(
        "moved-end",
        "The audit log is written where the file was once opened, and not at its end.",
        "observe/auditlog.py",
        "os.O_RDWR | os.O_APPEND | os.O_CREAT",
        "os.O_RDWR | os.O_CREAT",
        (_AUDITLOG + "test_what_is_there_is_kept",),
    ),
    Break(
        "audit-link",
        "A link in the place of the audit log is followed.",
        "observe/auditlog.py",
        "os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_CREAT | os.O_CLOEXEC",
        (_AUDITLOG + "test_a_link_is_not_followed",),
    ),
)
