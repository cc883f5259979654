"""The Users API's social planner: tags, tag details, accounts, and statistics in both dialects (FACTS §2)."""

from datetime import datetime, timedelta
from typing import Any, Final

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.state import Json
from pipeline.sandbox.users_shared import UsersOperation, location_of, number, required
from pipeline.sandbox.users_state import UsersLocation, UsersState

__all__ = ["OPERATIONS"]

_MAX_PROFILES: Final = 100
_GENDERS: Final = ("male", "female", "unknown")
_AGES: Final = ("13-17", "18-24", "25-34", "35-44", "45-54", "55-64", "65+")


def tags(state: UsersState, call: Call) -> Answer:
    """``get-tags-location-id``: ``limit`` and ``skip`` are strings; ``count`` is of all that match."""
    location = location_of(state, call)
    text = call.query.get("searchText", "").casefold()
    found = [tag for tag in location.tags.values() if text in tag["tag"].casefold()]
    skip = number(call.query.get("skip"), 0, name="skip")
    limit = number(call.query.get("limit"), 10, name="limit", high=1_000)
    results = {"tags": found[skip : skip + limit], "count": len(found)}
    return Answer(200, _envelope(200, "Fetched Tags by Location ID", results))


def tag_details(state: UsersState, call: Call) -> Answer:
    """``get-tags-by-ids``: 201, the tags that exist, with colour, description and detailsId."""
    location = location_of(state, call)
    body = call.json()
    required(body, tagIds=list)
    found = [detail for each in body["tagIds"] if (detail := location.tag_details(str(each)))]
    return Answer(201, _envelope(201, "Fetched Tags by Ids", {"tags": found, "count": len(found)}))


def accounts(state: UsersState, call: Call) -> Answer:
    """``get-account``: the connected profiles."""
    found = list(location_of(state, call).accounts.values())
    return Answer(200, _envelope(200, "Fetched Accounts", {"accounts": found, "groups": []}))


def statistics(state: UsersState, call: Call) -> Answer:
    """
    ``get-social-media-statistics``: with ``statisticsId`` and ``metrics`` a submission of the catalogue
    dialect, with ``profileIds`` the vendor's query of the last seven days.
    """
    body = call.json() if call.raw else {}
    if "statisticsId" in body and "metrics" in body:
        return _submit(state, call, body)
    location = state.location(call.query.get("locationId", ""))
    required(body, profileIds=list)
    if not 1 <= len(body["profileIds"]) <= _MAX_PROFILES:
        raise Refusal(400, f"profileIds must have 1 to {_MAX_PROFILES} entries")
    results = _query(location, body, call.now)
    status = 200 if call.headers.get("Version") == "v3" else 201
    told = {"results": results, "message": "Analytics Built Successfully", "traceId": location.ids.uuid()}
    return Answer(status, told)


def read_statistics(state: UsersState, call: Call) -> Answer:
    """
    ``statistics.readonly`` of the catalogue: with ``statisticsId`` that one, else the location's own, else
    its newest submission; without ``locationId`` sums of the whole account.
    """
    if "locationId" not in call.query:
        return Answer(200, _account_level(state))
    location = location_of(state, call)
    asked = call.query.get("statisticsId")
    if asked is None:
        return Answer(200, _current(location))
    submission = location.submissions.get(asked)
    if submission is None:
        raise Refusal(404, "Statistics not found")
    return Answer(200, submission.body)


def _submit(state: UsersState, call: Call, body: Json) -> Answer:
    required(body, statisticsId=str, locationId=str, metrics=dict)
    location = state.location(body["locationId"])
    if call.query.get("locationId", location.id) != location.id:
        raise Refusal(400, "locationId of body and query differ")
    location.submit_statistics(body, at=call.now)
    return Answer(201, {"success": True, "statusCode": 201, "statisticsId": body["statisticsId"]})


def _current(location: UsersLocation) -> Json:
    if location.own_statistics is not None:
        return location.own_statistics
    newest = max(location.submissions.values(), key=lambda each: each.at, default=None)
    if newest is not None:
        return newest.body
    return {"statisticsId": f"none-{location.id}", "locationId": location.id, "metrics": {}}


def _account_level(state: UsersState) -> Json:
    metrics: dict[str, Any] = {}
    for location in state.locations.values():
        for name, value in _current(location)["metrics"].items():
            if isinstance(value, int | float):
                metrics[name] = metrics.get(name, 0) + value
    return {"statisticsId": f"account-{state.company_id}", "metrics": metrics}


def _query(location: UsersLocation, body: Json, now: datetime) -> Json:
    """What the vendor answers: sums and daily series of the asked profiles, by platform."""
    asked = {str(each) for each in body["profileIds"]}
    platforms = set(body.get("platforms") or ())
    profiles = [
        (account["platform"], location.profile_statistics[account["profileId"]])
        for account in location.accounts.values()
        if asked & {account["profileId"], account["id"]}
        and (not platforms or account["platform"] in platforms)
    ]
    series = {name: _summed(profiles, name) for name in ("posts", "impressions", "likes", "comments")}
    totals: Json = {name: sum(days) for name, days in series.items()}
    totals["followers"] = sum(figures["followers"] for _, figures in profiles)
    by_platform = {platform: [f for p, f in profiles if p == platform] for platform, _ in profiles}
    performance = {name: series[name] for name in ("impressions", "likes", "comments")}
    return {
        "dayRange": [(now - timedelta(days=back)).strftime("%a") for back in range(6, -1, -1)],
        "totals": totals,
        "postPerformance": {"posts": {p: _days(f, "posts") for p, f in by_platform.items()}, **performance},
        "breakdowns": _breakdowns(by_platform),
        "platformTotals": _platform_totals(by_platform),
        "demographics": _demographics(),
    }


def _breakdowns(by_platform: dict[str, list[Json]]) -> Json:
    def breakdown(name: str) -> Json:
        shown = {p: {"value": sum(_days(f, name)), "change": 0} for p, f in by_platform.items()}
        return {"total": sum(each["value"] for each in shown.values()), "totalChange": 0, "platforms": shown}

    engagement = {
        p: {"likes": sum(_days(f, "likes")), "comments": sum(_days(f, "comments")), "shares": 0, "change": 0}
        for p, f in by_platform.items()
    }
    reach = breakdown("impressions")
    return {
        "posts": breakdown("posts"),
        "impressions": breakdown("impressions"),
        "reach": reach,
        "engagement": engagement,
    }


def _platform_totals(by_platform: dict[str, list[Json]]) -> Json:
    def totals(name: str) -> Json:
        days = {p: _days(f, name) for p, f in by_platform.items()}
        return {p: {"total": sum(each), "series": each} for p, each in days.items()}

    followers = {p: sum(figures["followers"] for figures in f) for p, f in by_platform.items()}
    shown = {p: {"total": total, "series": [total] * 7} for p, total in followers.items()}
    return {"impressions": totals("impressions"), "followers": shown, "likes": totals("likes")}


def _demographics() -> Json:
    genders = {name: {"total": 0, "percentage": 0} for name in _GENDERS}
    return {"gender": {"totals": genders}, "age": {"totals": dict.fromkeys(_AGES, 0)}}


def _summed(profiles: list[tuple[str, Json]], name: str) -> list[int]:
    return _days([figures for _, figures in profiles], name)


def _days(figures: list[Json], name: str) -> list[int]:
    return [sum(each[name][day] for each in figures) for day in range(7)]


def _envelope(status: int, message: str, results: Json) -> Json:
    return {"success": True, "statusCode": status, "message": message, "results": results}


_POSTING: Final = "/social-media-posting"
_TAGS: Final = ("socialplanner/tag.readonly",)
_STATISTICS: Final = ("socialplanner/statistics.readonly",)
OPERATIONS: Final = (
    UsersOperation("get-tags-location-id", "GET", f"{_POSTING}/{{locationId}}/tags", tags, _TAGS),
    UsersOperation("get-tags-by-ids", "POST", f"{_POSTING}/{{locationId}}/tags/details", tag_details, _TAGS),
    UsersOperation(
        "get-account",
        "GET",
        f"{_POSTING}/{{locationId}}/accounts",
        accounts,
        ("socialplanner/account.readonly",),
    ),
    UsersOperation("get-social-media-statistics", "POST", f"{_POSTING}/statistics", statistics, _STATISTICS),
    UsersOperation(
        "statistics.readonly", "GET", "/socialplanner/statistics.readonly", read_statistics, _STATISTICS
    ),
)
