"""The page: nothing that was typed comes back, nothing of others is taken for HTML."""

from __future__ import annotations

from tests.breaks.change import Break

_PAGES = "tests/admin/ui/test_pages.py::"
_SHOW = "tests/admin/ui/test_show.py::"

BREAKS = (
    Break(
        "page-escaping",
        "Templates write texts as they are.",
        "admin/ui/render.py",
        "        autoescape=True,\n",
        "        autoescape=False,  # noqa: S701\n",
        (_PAGES + "test_after_a_mistake_the_rest_of_the_form_is_still_there",),
    ),
    Break(
        "page-hidden-characters",
        "Characters that nobody sees stay as they are.",
        "admin/ui/show.py",
        "    return kind in _HIDDEN or",
        "    return not _HIDDEN or",
        (_SHOW + "test_what_cannot_be_seen_is_spelt_out",),
    ),
    Break(
        "page-domains-unasked",
        "A form with other domains and no value is taken, and says that it was saved.",
        "admin/ui/secret_forms.py",
        "    moved = _differ(wanted, bool(any_domain), secret)\n",
        "    moved = bool(value) and _differ(wanted, bool(any_domain), secret)\n",
        (_PAGES + "test_nobody_makes_a_value_go_to_a_new_domain_without_having_it",),
    ),
    Break(
        "page-value-again",
        "A value that was typed into another field too is shown again after a mistake.",
        "admin/ui/forms.py",
        '    return ["" if holds else field for field, holds in zip(fields, shown, strict=True)]\n',
        "    return list(fields) if shown else []\n",
        (_PAGES + "test_a_mistake_is_told_beside_its_field_and_the_value_is_not_repeated",),
    ),
    Break(
        "page-etag-edit",
        "An edit overwrites what it never showed.",
        "admin/ui/secret_forms.py",
        '            expected=etag or "-",\n',
        '            expected="*",\n',
        (_PAGES + "test_an_edit_of_what_was_changed_meanwhile_is_explained",),
    ),
    Break(
        "page-etag-after-a-mistake",
        "A form with a mistake stands for the newest state, which it never showed.",
        "admin/ui/secret_forms.py",
        "        etag=shown_etag or etag(secret),\n",
        "        etag=etag(secret),\n",
        (_PAGES + "test_after_a_mistake_the_form_still_stands_for_what_it_was_made_of",),
    ),
    Break(
        "page-etag-delete",
        "A deletion takes away what was changed meanwhile.",
        "admin/ui/secret_pages.py",
        'expected=etag or "-", force=bool(force))',
        'expected="*", force=bool(force))',
        (_PAGES + "test_deleting_what_was_changed_meanwhile_is_refused",),
    ),
    Break(
        "page-force-unasked",
        "A deletion is forced without the box.",
        "admin/ui/secret_pages.py",
        'expected=etag or "-", force=bool(force))',
        'expected=etag or "-", force=True)',
        (_PAGES + "test_what_is_in_use_is_not_deleted_and_says_who_uses_it",),
    ),
    Break(
        "page-public",
        "More than the log-in and the files is public.",
        "admin/ui/site.py",
        'PUBLIC = frozenset({LOG_IN, f"{files.PREFIX}/"})',
        'PUBLIC = frozenset({LOG_IN, f"{files.PREFIX}/", "/tokens"})',
        (_PAGES + "test_without_a_session_each_page_leads_to_the_log_in",),
    ),
    Break(
        "page-role",
        "A form of editors asks for no role.",
        "admin/ui/secret_forms.py",
        "def show_new(request: Request, actor: Editor) -> Response:",
        "def show_new(request: Request, actor: object = None) -> Response:",
        (_PAGES + "test_what_needs_no_credential_is_counted",),
    ),
)
