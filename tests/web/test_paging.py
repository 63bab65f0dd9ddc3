"""Ids, versions and filters as they come in URLs and headers."""

from __future__ import annotations

import pytest

from engine import Kept, Status, TaskQuery
from web.paging import if_match, query_of, task_id_of
from web.problems import Problem
from web.schemas import ListQuery

ID = "01900000-0000-7000-8000-00000000000a"


@pytest.mark.parametrize("text", [ID, ID.upper(), ID.replace("-", "")])
def test_an_id_has_one_spelling_inside(text: str) -> None:
    assert task_id_of(text) == ID


@pytest.mark.parametrize("text", ["", "7", "x" * 1000, "01900000-0000-7000-8000-00000000000g"])
def test_an_id_that_cannot_exist_is_not_found(text: str) -> None:
    with pytest.raises(Problem) as caught:
        task_id_of(text)
    assert caught.value.status == 404
    assert caught.value.kind == "task-not-found"
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    ("header", "version"), [(None, None), ("*", None), (' "7" ', 7), ("7", 7), ('"0"', 0)]
)
def test_if_match_is_a_version_or_anything(header: str | None, version: int | None) -> None:
    assert if_match(header) == version


@pytest.mark.parametrize(
    "header", ['"abc"', 'W/"7"', '"7", "8"', "", '"-1"', '"²"', '"' + "9" * 30]
)
def test_a_tag_that_was_never_given_out_is_a_bad_request(header: str) -> None:
    with pytest.raises(Problem) as caught:
        if_match(header)
    assert caught.value.status == 400


def test_filters_become_a_query() -> None:
    given = ListQuery(
        status=Status.QUEUED, name="invoice", metadata="a:b,c:d:e,f:", priority=1, cursor=ID
    )
    assert query_of(given, Kept.LIVE, frozenset()) == TaskQuery(
        statuses=frozenset({Status.QUEUED}),
        names=frozenset({"invoice"}),
        priority=1,
        metadata={"a": "b", "c": "d:e", "f": ""},
        kept=Kept.LIVE,
        before=ID,
    )


def test_without_filters_the_list_decides_which_statuses_it_shows() -> None:
    failed = frozenset({Status.FAILED})
    assert query_of(ListQuery(), Kept.ANYWHERE, failed) == TaskQuery(statuses=failed)


@pytest.mark.parametrize(
    ("given", "where"),
    [(ListQuery(cursor="nowhere"), "/cursor"), (ListQuery(metadata="a:b,c"), "/metadata")],
)
def test_a_filter_that_makes_no_sense_is_named(given: ListQuery, where: str) -> None:
    with pytest.raises(Problem) as caught:
        query_of(given, Kept.ANYWHERE, frozenset())
    assert [error.pointer for error in caught.value.errors] == [where]
