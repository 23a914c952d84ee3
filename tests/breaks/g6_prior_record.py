"""G6: an audit record stands before the bytes leave."""

from __future__ import annotations

from tests.breaks.change import Break

_GATEWAY = "tests/test_gateway.py::"
_AUDITLOG = "tests/observe/test_auditlog.py::"
_VERIFY = "tests/observe/test_auditverify.py::"

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
        "        if written != len(line):\n            self._add_rest(",
        "        if not written:\n            self._add_rest(",
        (_AUDITLOG + "test_half_a_line_is_an_error_and_spoils_no_other",),
    ),
    Break(
        "moved-end",
        "The audit log is written where the file was once opened, and not at its end.",
        "observe/auditlog.py",
        "os.O_RDWR | os.O_APPEND | os.O_CREAT",
        "os.O_RDWR | os.O_CREAT",
        (_AUDITLOG + "test_not_even_a_meddler_moves_the_end",),
    ),
    Break(
        "audit-link",
        "A link in the place of the audit log is followed.",
        "observe/auditlog.py",
        "os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_CREAT | os.O_CLOEXEC",
        (_AUDITLOG + "test_a_link_is_not_followed",),
    ),
    Break(
        "two-writers",
        "Two processes write one audit log.",
        "observe/auditlog.py",
        "                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
        (_AUDITLOG + "test_a_log_has_one_writer",),
    ),
    Break(
        "chain-unchecked",
        "A line of the audit log may be changed.",
        "observe/auditverify.py",
        "sha256(base + rest + line.body).digest() != line.chain",
        "sha256(base + rest + line.body).digest() == b''",
        (_VERIFY + "test_each_byte_counts", _VERIFY + "test_the_line_that_was_changed_is_named"),
    ),
    Break(
        "number-unchecked",
        "A line may be taken out of the audit log by who makes the chain anew.",
        "observe/auditverify.py",
        "        if line.sequence > last + 1:\n",
        "        if line.sequence < 0:\n",
        (_VERIFY + "test_what_is_done_shows_and_where",),
    ),
    Break(
        "signature-unchecked",
        "Anybody may sign a head of the audit log.",
        "observe/auditverify.py",
        "        elif self._verifies(line):\n",
        "        elif line.signature:\n",
        (_VERIFY + "test_what_is_done_shows_and_where",),
    ),
    Break(
        "end-unchecked",
        "The audit log may be cut at its end.",
        "observe/auditverify.py",
        "found.last < self._apart.sequence",
        "found.last < 0",
        (_VERIFY + "test_what_is_done_shows_and_where",),
    ),
    Break(
        "foreign-untold",
        "Lines may be added to the audit log while no process writes it.",
        "observe/auditlog.py",
        "            self._foreign = max(0, found.sequence - apart.sequence)\n",
        "            self._foreign = 0\n",
        (_VERIFY + "test_what_is_done_shows_and_where",),
    ),
    Break(
        "change-unrecorded",
        "A change is made that cannot be recorded.",
        "observe/managementlog.py",
        "            raise AuditError(\n"
        '                f"audit_unavailable: {error.problem}; nothing was changed",'
        " hint=error.hint\n"
        "            ) from None\n",
        "            str(error)\n",
        ("tests/observe/test_managementlog.py::test_what_cannot_be_recorded_is_not_done",),
    ),
    Break(
        "command-unrecorded",
        "A secret is set without a record of who did.",
        "cli/secret.py",
        "        with recorded(Home(settings.home), settings, change) as end:\n"
        "            secret = store.put(\n",
        '        with __import__("contextlib").nullcontext(change) as end:\n'
        '            end = __import__("types").SimpleNamespace()\n'
        "            secret = store.put(\n",
        ("tests/cli/test_audit_command.py::test_a_command_that_changes_something_is_on_record",),
    ),
    Break(
        "retired-unsigned",
        "Who can write to the audit log may say that the proxy has deleted old files.",
        "observe/auditverify.py",
        " in self._retired if number <= found.signed\n",
        " in self._retired\n",
        (_VERIFY + "test_a_line_that_nobody_signed_excuses_no_deletion",),
    ),
    Break(
        "deleted-by-name",
        "What is deleted of the audit log goes by names and times that others can change.",
        "observe/auditlog.py",
        "        if head is None or (begins, head.sequence) != (first, last):\n",
        "        if head is None:\n",
        (_VERIFY + "test_who_can_write_to_the_folder_has_nothing_deleted",),
    ),
    Break(
        "deleted-by-time",
        "The age of a file of the audit log is what its last line says, whatever was signed.",
        "observe/auditlog.py",
        "        if before is None or sha256(before.chain + head.body).digest() != head.chain:\n",
        "        if before is None:\n",
        (_VERIFY + "test_who_can_write_to_the_folder_has_nothing_deleted",),
    ),
    Break(
        "deleted-unrecorded",
        "Old files of the audit log are deleted before a line says so.",
        "observe/auditlog.py",
        "            old = self._old_files()\n",
        "            old = self._old_files()\n            [path.unlink() for *_, path in old]\n",
        (_VERIFY + "test_what_cannot_be_recorded_is_not_deleted",),
    ),
)
