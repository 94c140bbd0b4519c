"""What HTTP requires of a shared cache, in our words, with the tests that hold it; the page is made by running this."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

__all__ = ["MUSTS", "PAGE", "Must", "page"]

PAGE = Path(__file__).parent.parent / "docs" / "http-musts.md"

_F, _S, _R, _L, _W, _G = ("freshness", "storing", "reuse", "flow", "wire", "registries")


@frozen
class Must:
    """
    One requirement.

    :ivar where: RFC and section.
    :ivar text: what is required.
    :ivar tests: of it, as ``FILE:NAME``; none where it cannot be broken here.
    :ivar note: why there are none, or what is to be said beside.
    """

    where: str
    text: str
    tests: tuple[str, ...] = ()
    note: str = ""


def _must(where: str, text: str, *tests: str, note: str = "") -> Must:
    return Must(where, text, tests, note)


MUSTS = (
    _must(
        "9111 1.2.2", "Seconds beyond what can be counted are 2^31.", f"{_F}:test_stated_lifetimes", f"{_F}:test_age"
    ),
    _must(
        "9111 3",
        "Nothing is stored but final answers to an understood method, with an understood status where that is asked"
        " for, without no-store, private, or unshared credentials, and cacheable by status or by word.",
        *(f"{_S}:test_methods", f"{_S}:test_statuses", f"{_S}:test_no_store", f"{_S}:test_must_understand"),
        *(f"{_S}:test_private", f"{_S}:test_authorization"),
    ),
    _must(
        "9111 3.1",
        "All fields are stored, unknown ones too.",
        f"{_S}:test_kept_fields",
        f"{_W}:test_all_fields_are_kept",
    ),
    _must(
        "9111 3.1",
        "Fields of the connection, and those that Connection names, are neither stored nor passed on.",
        *(f"{_S}:test_fields_of_the_connection", f"{_W}:test_fields_of_one_connection"),
    ),
    _must("9111 3.1", "Trailer fields are not mixed with the others.", f"{_W}:test_framing"),
    _must(
        "9111 3.2",
        "Each field of a validating answer replaces the stored one, but not Content-Length, Content-Encoding and"
        " Content-Range.",
        *(f"{_S}:test_a_304_updates", f"{_L}:test_validation"),
    ),
    _must(
        "9111 3.3",
        "Parts are stored only in understood units, as parts.",
        f"{_S}:test_parts",
        f"{_L}:test_a_part_that_is_none",
    ),
    _must(
        "9111 3.3",
        "A part answers only for bytes that are all within it, and with 206.",
        *(f"{_R}:test_a_part_is_no_whole", f"{_L}:test_parts"),
    ),
    _must(
        "9111 3.3",
        "An incomplete answer is not used as a whole.",
        f"{_L}:test_cut_bodies_are_not_stored",
        f"{_W}:test_cut_answers",
    ),
    _must("9111 3.4", "Parts are combined only with the same strong validator.", note="Parts are never combined."),
    _must(
        "9111 3.5",
        "What was asked for with Authorization is another's only with public, s-maxage or must-revalidate.",
        *(f"{_S}:test_authorization", f"{_L}:test_authorization"),
    ),
    _must(
        "9111 4",
        "Used again is only what matches in URL, method and selecting fields, and is fresh, validated or allowed.",
        *(f"{_R}:test_fresh_or_not", f"{_R}:test_selecting", f"{_L}:test_fresh_then_stale_then_new"),
        f"{_L}:test_what_may_not_be_used_again_is_not_shared",
    ),
    _must("9111 4", "An answer from the store has its Age.", f"{_L}:test_age_and_date", f"{_W}:test_a_hit"),
    _must("9111 4", "Unsafe methods are written through.", f"{_L}:test_unsafe_methods", f"{_W}:test_methods"),
    _must("9111 4", "Of several fitting answers the latest by Date is used.", f"{_R}:test_the_latest_of_several"),
    _must(
        "9111 4",
        "Without a clock everything is validated.",
        f"{_R}:test_fresh_or_not",
        note="There is a clock; what came in its future counts as expired.",
    ),
    _must(
        "9111 4.1",
        "All fields that Vary names match, or the answer is not used; an asterisk matches nothing.",
        *(f"{_R}:test_selecting", f"{_S}:test_vary_on_anything", f"{_L}:test_variants_lie_side_by_side"),
        f"{_W}:test_many_variants",
    ),
    _must(
        "9111 4.2",
        "Dates are compared in GMT, whatever the local zone.",
        f"{_F}:test_no_dates",
        f"{_F}:test_dates_come_back",
    ),
    _must(
        "9111 4.2.2",
        "Nothing is guessed where a lifetime is stated.",
        f"{_F}:test_heuristics",
        f"{_F}:test_nothing_to_guess_from",
    ),
    _must("9111 4.2.3", "Age is counted from when the request began.", f"{_F}:test_age_when_it_came"),
    _must(
        "9111 4.2.4",
        "Nothing stale where no-cache, must-revalidate, proxy-revalidate or s-maxage forbid it.",
        *(f"{_R}:test_fresh_or_not", f"{_R}:test_disconnected", f"{_R}:test_max_stale_is_not_above_the_origin"),
        *(f"{_L}:test_stale_in_trouble", f"{_W}:test_stale_is_forbidden", f"{_G}:test_documents_in_trouble"),
    ),
    _must(
        "9111 4.2.4",
        "Nothing stale unless the upstream cannot be asked, or the origin, the client or the operator allows it.",
        *(f"{_R}:test_stale_if_error", f"{_R}:test_stale_while_revalidate", f"{_L}:test_stale_if_error_can_be_off"),
    ),
    _must("9111 4.3.1", "A validating request carries what selects.", f"{_L}:test_validation_carries_what_selects"),
    _must(
        "9111 4.3.2",
        "Conditions of clients are judged by what is stored, If-None-Match first; those for the origin are passed on.",
        *(f"{_L}:test_conditions_of_clients", f"{_L}:test_conditions_where_nothing_is_stored"),
        *(f"{_L}:test_conditions_are_of_success", f"{_L}:test_conditions_without_a_date_of_change"),
    ),
    _must("9111 4.3.2", "A stored part's tag is not sent for the whole.", f"{_L}:test_parts"),
    _must(
        "9111 4.3.3",
        "A full answer to a validation is the one to use.",
        f"{_L}:test_replaced_by_what_may_not_be_stored",
    ),
    _must(
        "9111 4.3.4",
        "A 304 with another strong validator updates nothing.",
        f"{_S}:test_a_304_of_something_else",
        f"{_L}:test_a_304_of_another_version",
    ),
    _must(
        "9111 4.3.4", "A 304 updates the fields of what it speaks of.", f"{_L}:test_validation", f"{_W}:test_validation"
    ),
    _must(
        "9111 4.3.5",
        "HEAD updates what it speaks of, by the same rule.",
        f"{_S}:test_what_head_tells",
        f"{_L}:test_head_freshens",
    ),
    _must(
        "9111 4.4",
        "A success of an unsafe or unknown method makes what is stored of its URL go; a failure does not.",
        *(
            f"{_S}:test_invalidation",
            f"{_L}:test_unsafe_methods",
            f"{_L}:test_what_changes_under_way",
            f"{_L}:test_what_changes_while_it_is_stored",
        ),
        f"{_G}:test_publishing",
    ),
    _must(
        "9111 4.4",
        "Nothing of another origin goes.",
        f"{_S}:test_invalidation_of_others",
        f"{_L}:test_invalidation_of_what_is_named",
    ),
    _must("9111 5.1", "Of several values of Age the first counts; junk does not.", f"{_F}:test_age"),
    _must(
        "9111 5.2",
        "Cache directives are passed on, both ways.",
        f"{_W}:test_all_fields_are_kept",
        f"{_S}:test_fields_that_travel",
    ),
    _must(
        "9111 5.2.1", "What clients demand is advice.", f"{_R}:test_demands", f"{_L}:test_demands_count_where_they_may"
    ),
    _must(
        "9111 5.2.1.5",
        "After a request with no-store nothing of it is kept.",
        f"{_L}:test_demands_count_where_they_may",
        note="Where `client-directives` is set.",
    ),
    _must(
        "9111 5.2.2.1",
        "Lifetimes are written as numbers, without quotes.",
        note="None is written here but in numbers; quoted ones are read.",
    ),
    _must(
        "9111 5.2.2.2",
        "must-revalidate holds in an outage too: an error.",
        f"{_R}:test_disconnected",
        f"{_W}:test_stale_is_forbidden",
    ),
    _must(
        "9111 5.2.2.4",
        "no-cache: used only once validated; with names, these fields are not used.",
        f"{_R}:test_fresh_or_not",
        f"{_F}:test_field_names",
        f"{_S}:test_kept_fields",
    ),
    _must(
        "9111 5.2.2.5",
        "no-store: nothing reaches the disk.",
        f"{_S}:test_no_store",
        f"{_L}:test_no_store",
        f"{_G}:test_documents_that_may_not_be_stored",
        f"{_G}:test_artifacts_that_may_not_be_stored",
    ),
    _must(
        "9111 5.2.2.6",
        "no-transform: the content is not changed.",
        f"{_W}:test_all_fields_are_kept",
        note="Nothing is, but the links of index pages, without which their registry could not be served.",
    ),
    _must(
        "9111 5.2.2.7",
        "private: not stored; with names, these fields are not.",
        f"{_S}:test_private",
        f"{_S}:test_kept_fields",
    ),
    _must(
        "9111 5.2.2.8",
        "proxy-revalidate: as must-revalidate.",
        f"{_R}:test_fresh_or_not",
        f"{_W}:test_stale_is_forbidden",
    ),
    _must(
        "9111 5.2.2.10",
        "s-maxage: before max-age and Expires, and as proxy-revalidate.",
        f"{_F}:test_stated_lifetimes",
        f"{_R}:test_fresh_or_not",
    ),
    _must(
        "9111 5.2.3",
        "Unknown directives are ignored.",
        f"{_F}:test_stated_lifetimes",
        f"{_F}:test_anything_can_be_read",
    ),
    _must(
        "9111 5.3",
        "An invalid Expires lies in the past, and max-age comes before it.",
        f"{_F}:test_expires",
        f"{_F}:test_several_expires",
    ),
    _must(
        "5861 3",
        "stale-while-revalidate: for so long, while it is asked beside.",
        f"{_R}:test_stale_while_revalidate",
        f"{_L}:test_stale_while_revalidate",
        f"{_L}:test_one_asks_beside",
        f"{_G}:test_documents_beside",
    ),
    _must(
        "5861 4",
        "stale-if-error: for so long, in place of 500, 502, 503 and 504.",
        f"{_R}:test_stale_if_error",
        f"{_L}:test_stale_in_trouble",
        f"{_W}:test_stale_in_trouble",
    ),
    _must(
        "8246 2",
        "immutable: past its lifetime it is asked for as all is.",
        f"{_R}:test_fresh_or_not",
        f"{_G}:test_proven_artifacts_do_not_age",
    ),
    _must(
        "9211 2",
        "Cache-Status says what this cache did, after what others did.",
        f"{_W}:test_other_caches",
        f"{_L}:test_cache_status",
        f"{_W}:test_a_hit",
    ),
    _must(
        "9213 2.1",
        "A targeted field that is empty or malformed is as if it were not there.",
        f"{_F}:test_targeted",
        f"{_F}:test_targeted_without_values",
    ),
    _must("9213 2.2", "A well-formed one counts alone.", f"{_F}:test_targeted"),
    _must(
        "9110 5.6.7",
        "All three forms of dates are read, and no others.",
        f"{_F}:test_expires",
        f"{_F}:test_no_dates",
        f"{_F}:test_short_years",
    ),
    _must(
        "9110 6.6.1",
        "What comes without a Date is given one; another's is kept.",
        f"{_F}:test_date_is_given",
        f"{_L}:test_age_and_date",
    ),
    _must(
        "9110 7.6.1",
        "Fields of a client's connection end here.",
        f"{_S}:test_fields_that_travel",
        f"{_W}:test_what_clients_send",
    ),
    _must("9110 7.6.3", "Via is added to, both ways.", f"{_W}:test_what_clients_send"),
    _must(
        "9110 8.6",
        "A 204 has no length, a POST without content says so.",
        f"{_W}:test_every_status",
        f"{_W}:test_methods",
    ),
    _must("9110 13.2.1", "Conditions are of what would else succeed.", f"{_L}:test_conditions_are_of_success"),
    _must(
        "9110 14.2",
        "Ranges that cannot be read are passed over; If-Range wants a strong validator.",
        f"{_L}:test_ranges_of_a_stored_whole",
        f"{_W}:test_ranges",
    ),
    _must(
        "9110 15.2", "Interim answers are passed on, to HTTP/1.1 alone, and not stored.", f"{_W}:test_interim_responses"
    ),
    _must(
        "9110 15.4.5",
        "A 304 has its validators and lifetimes.",
        f"{_L}:test_conditions_of_clients",
        f"{_W}:test_validation",
    ),
    _must("9112 6.3", "Bytes behind a message are no part of it, and no other.", f"{_W}:test_framing"),
    _must(
        "9112 7", "A coding that was not asked for is no answer.", f"{_W}:test_transfer_codings_that_nobody_asked_for"
    ),
    _must("9112 8", "A cut answer never looks whole.", f"{_W}:test_cut_answers"),
    _must("9112 9.3", "HTTP/1.0 is spoken to both sides.", f"{_W}:test_old_upstreams_and_clients"),
)

_HEAD = """# What HTTP requires of a cache, and where it is tried

This page is made from the tests' own table: each requirement on a shared cache in our words, with its RFC and section,
and the tests of `tests/test_rfc9111_*.py` that hold it. {doc}`http` tells what is chosen where the RFCs leave it open.

| RFC, section | what is required | tested by |
|---|---|---|
"""


def page() -> str:
    """The page of the documentation."""
    rows = []
    for one in MUSTS:
        tests = ", ".join(f"`{test.replace(':', '.').replace('test_', '', 1)}`" for test in one.tests)
        rows.append(f"| {one.where} | {one.text} | {' '.join(filter(None, (tests, one.note)))} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
