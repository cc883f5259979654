"""Decode's tables of what is polled of the Users API besides contacts."""

from typing import Any

import pytest

from pipeline.errors import RecordError
from pipeline.events import LocationTag, SocialAccount, StatisticsSnapshot, User
from tests.unit.decode_records import LOCATION, OTHER_LOCATION, Task, at

TAG: dict[str, Any] = {
    "_id": "t1",
    "tag": "VIP",
    "createdBy": "x",
    "deleted": False,
    "createdAt": at(1),
    "updatedAt": at(2),
    "colour": "#f00",
    "detailsId": "d1",
}
USER: dict[str, Any] = {
    "id": "p1",
    "firstName": "Eve",
    "phone": "+1 808-868-8888",
    "roles": {"type": "account", "role": "admin", "locationIds": [LOCATION]},
}
STATISTICS: dict[str, Any] = {
    "dialect": "vendor",
    "locationId": LOCATION,
    "profileIds": ["b", "a"],
    "observedAt": at(9),
    "windowStart": at(2),
    "windowEnd": at(9),
    "statisticsId": None,
    "results": {"totals": {"likes": 1.50}},
}


def poll(task: Task, resource: str, item: Any, **headers: Any) -> None:
    """A polled item under its native key."""
    task.users_poll(resource, item, "acme:u:-:1", **headers)


def test_a_tag_is_written_with_its_details() -> None:
    """List and details are one row."""
    task = Task()
    poll(task, "tags", TAG)
    assert task.table("users.tags") == {
        "acme:t1": LocationTag(
            tenant="acme",
            location_id=LOCATION,
            tag_id="t1",
            name="VIP",
            colour="#f00",
            details_id="d1",
            created_by="x",
            created_at=at(1),
            updated_at=at(2),
        )
    }


def test_an_equal_tag_is_a_duplicate_and_an_older_one_loses() -> None:
    """Only what is new is written."""
    task = Task()
    for item in (TAG, TAG | {"deletedBy": "x"}, TAG | {"tag": "Old", "updatedAt": at(1)}):
        poll(task, "tags", item, scan=at(10))
    assert [len(outcome.emit) for outcome in task.outcomes] == [1, 0, 0]


@pytest.mark.parametrize("item", [TAG | {"deleted": True, "updatedAt": at(8)}, TAG])
def test_a_tag_goes_when_it_is_deleted_or_no_longer_listed(item: dict[str, Any]) -> None:
    """Either way the row is deleted once, and an older scan brings it not back."""
    task = Task()
    poll(task, "tags", TAG, scan=at(7), received_at=at(7, 1))
    change = "" if item["deleted"] else "removed"
    poll(task, "tags", item, scan=at(9), change=change)
    poll(task, "tags", TAG, scan=at(8), received_at=at(8, 1))
    assert task.table("users.tags") == {}
    assert [len(outcome.emit) for outcome in task.outcomes] == [1, 1, 0]


def test_a_tag_that_is_listed_again_is_back() -> None:
    """A later scan knows better."""
    task = Task()
    poll(task, "tags", TAG, scan=at(7), change="removed")
    poll(task, "tags", TAG, scan=at(8))
    assert list(task.table("users.tags")) == ["acme:t1"]


def test_a_user_is_gone_when_no_location_lists_it() -> None:
    """A user of two locations stays with the second."""
    task = Task()
    for location, change, scan in (
        (LOCATION, "", at(5)),
        (OTHER_LOCATION, "", at(5)),
        (LOCATION, "removed", at(6)),
    ):
        poll(task, "users", USER, account=location, change=change, scan=scan, received_at=scan)
    assert list(task.table("users.users")) == ["acme:p1"]
    poll(task, "users", USER, account=OTHER_LOCATION, change="removed", scan=at(7))
    assert task.table("users.users") == {}


def test_a_user_s_row_has_its_role_and_number() -> None:
    """Users have no timestamps; their number is normalised where it is valid."""
    task = Task()
    poll(task, "users", USER)
    assert task.table("users.users")["acme:p1"] == User(
        tenant="acme",
        user_id="p1",
        first_name="Eve",
        phone="+18088688888",
        role="admin",
        type="account",
        location_ids=(LOCATION,),
    )


def test_an_account_s_row_has_its_profile() -> None:
    """The profile id is what the statistics query takes."""
    task = Task()
    poll(task, "accounts", {"id": "a_1", "profileId": "a", "platform": "google", "isExpired": True})
    assert task.table("users.accounts")["acme:a_1"] == SocialAccount(
        tenant="acme", location_id=LOCATION, account_id="a_1", profile_id="a", platform="google", expired=True
    )


def test_a_snapshot_is_written_as_the_api_gave_it() -> None:
    """Its key has the profiles' hash and the window's end; the metrics are the API's JSON."""
    task = Task()
    poll(task, "statistics", STATISTICS)
    ((key, row),) = task.table("users.statistics").items()
    assert isinstance(row, StatisticsSnapshot)
    assert key == f"acme:{row.profiles_hash}:{at(9)}"
    assert (row.profile_ids, row.metrics) == (("a", "b"), '{"totals":{"likes":1.5}}')


def test_an_older_snapshot_of_the_same_window_loses() -> None:
    """What was observed later stands."""
    task = Task()
    poll(task, "statistics", STATISTICS)
    for item in (STATISTICS, STATISTICS | {"observedAt": at(8), "results": {}}):
        poll(task, "statistics", item)
    assert [len(outcome.emit) for outcome in task.outcomes] == [1, 0, 0]


def test_locations_without_profiles_are_kept_apart() -> None:
    """The catalogue's statistics have no profiles: the location tells them apart."""
    task = Task()
    for location in (LOCATION, OTHER_LOCATION):
        item = STATISTICS | {"locationId": location, "profileIds": [], "dialect": "catalogue"}
        poll(task, "statistics", item)
    assert len(task.table("users.statistics")) == 2


@pytest.mark.parametrize(
    ("resource", "item", "field"),
    [
        ("tags", {"tag": "VIP"}, "item._id"),
        ("tags", {"_id": "t1"}, "item.tag"),
        ("tags", TAG | {"updatedAt": "soon"}, "item.updatedAt"),
        ("users", {}, "item.id"),
        ("users", USER | {"roles": []}, "item.roles"),
        ("accounts", {"id": True}, "item.id"),
        ("statistics", STATISTICS | {"windowEnd": None}, "item.windowEnd"),
        ("pigeons", {}, "resource"),
    ],
)
def test_bad_items_are_refused_by_field(resource: str, item: dict[str, Any], field: str) -> None:
    """Each error names its field."""
    with pytest.raises(RecordError, match=field):
        poll(Task(), resource, item)
