"""Sakari's templates, campaigns and webhooks operations."""

from typing import Final
from urllib.parse import urlsplit

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.sakari_paging import AccountOperation, done, listed, matches
from pipeline.sandbox.sakari_state import SakariAccount, Subscription
from pipeline.sandbox.state import Json
from pipeline.sandbox.state_types import found

__all__ = ["OPERATIONS"]


def fetch_templates(account: SakariAccount, call: Call) -> Answer:
    """``templates.fetchAll``: all, or those with a part of a name."""
    return listed(account, call, _named(account.templates, call))


def create_template(account: SakariAccount, call: Call) -> Answer:
    """``templates.create``: answers a *list* with the one template."""
    template = account.put_template(_template(call.json())).value
    pagination: Json = {"offset": 0, "limit": 1, "totalCount": 1}
    return Answer(201, {"success": True, "pagination": pagination, "data": [template]})


def fetch_template(account: SakariAccount, call: Call) -> Answer:
    """``templates.fetch``."""
    return Answer(200, done(_template_of(account, call)))


def update_template(account: SakariAccount, call: Call) -> Answer:
    """``templates.update``."""
    identity = _template_of(account, call)["id"]
    return Answer(200, done(account.put_template(_template(call.json()), template_id=identity).value))


def remove_template(account: SakariAccount, call: Call) -> Answer:
    """``templates.remove``."""
    del account.templates[_template_of(account, call)["id"]]
    return Answer(200, done())


def fetch_campaigns(account: SakariAccount, call: Call) -> Answer:
    """``campaigns.fetchAll``: all, or those with a part of a name."""
    return listed(account, call, _named(account.campaigns, call))


def create_campaign(account: SakariAccount, call: Call) -> Answer:
    """``campaigns.create``."""
    return Answer(201, done(account.put_campaign(_campaign(call.json())).value))


def fetch_campaign(account: SakariAccount, call: Call) -> Answer:
    """``campaigns.fetch``."""
    return Answer(200, done(_campaign_of(account, call)))


def update_campaign(account: SakariAccount, call: Call) -> Answer:
    """``campaigns.update``."""
    identity = _campaign_of(account, call)["id"]
    return Answer(200, done(account.put_campaign(_campaign(call.json()), campaign_id=identity).value))


def remove_campaign(account: SakariAccount, call: Call) -> Answer:
    """``campaigns.remove``."""
    del account.campaigns[_campaign_of(account, call)["id"]]
    return Answer(200, done())


def fetch_webhooks(account: SakariAccount, call: Call) -> Answer:
    """``webhooks.fetchAll``."""
    shown = [_subscription(account, each) for each in account.subscriptions.values()]
    return listed(account, call, shown)


def subscribe(account: SakariAccount, call: Call) -> Answer:
    """``webhooks.subscribe``: the wire takes ``url``, though the document requires ``callbackUrl``."""
    body = call.json()
    url = body.get("url") or body.get("callbackUrl")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise Refusal(400, "url must be an http or https URL", "HOOK-001")
    kinds = body.get("eventTypes") or []
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise Refusal(400, "eventTypes must be a list of strings", "HOOK-002")
    return Answer(200, done(_subscription(account, account.subscribe(url, kinds))))


def unsubscribe(account: SakariAccount, call: Call) -> Answer:
    """``webhooks.unsubscribe``: the callback URL is the last path segment, URL-encoded."""
    account.unsubscribe(call.params["url"])
    return Answer(204)


def _subscription(account: SakariAccount, entry: Subscription) -> Json:
    kinds = list(entry.event_types)
    if account.subscription_answer == "document":
        return {"url": entry.url, "eventTypes": kinds}
    return {"id": entry.id, "type": "webhook", "eventTypes": kinds, "destination": entry.url}


def _named(among: dict[str, Json], call: Call) -> list[Json]:
    return [each for each in among.values() if matches(each.get("name"), call.query.get("name"))]


def _template_of(account: SakariAccount, call: Call) -> Json:
    return found(account.templates, "template", call.params["templateId"])


def _campaign_of(account: SakariAccount, call: Call) -> Json:
    return found(account.campaigns, "campaign", call.params["campaignId"])


def _template(body: Json) -> Json:
    if body.get("type", "SMS") not in ("SMS", "Web"):
        raise Refusal(400, "type must be SMS or Web", "TMPL-001")
    return {name: body[name] for name in ("name", "template", "type") if name in body}


def _campaign(body: Json) -> Json:
    if (body.get("trigger") or {}).get("code", "M") not in ("M", "S", "FU"):
        raise Refusal(400, "trigger.code must be M, S or FU", "CAMP-001")
    return {name: value for name, value in body.items() if name != "id"}


OPERATIONS: Final = (
    AccountOperation("templates.fetchAll", "GET", "/templates", fetch_templates),
    AccountOperation("templates.create", "POST", "/templates", create_template),
    AccountOperation("templates.fetch", "GET", "/templates/{templateId}", fetch_template),
    AccountOperation("templates.update", "PUT", "/templates/{templateId}", update_template),
    AccountOperation("templates.remove", "DELETE", "/templates/{templateId}", remove_template),
    AccountOperation("campaigns.fetchAll", "GET", "/campaigns", fetch_campaigns),
    AccountOperation("campaigns.create", "POST", "/campaigns", create_campaign),
    AccountOperation("campaigns.fetch", "GET", "/campaigns/{campaignId}", fetch_campaign),
    AccountOperation("campaigns.update", "PUT", "/campaigns/{campaignId}", update_campaign),
    AccountOperation("campaigns.remove", "DELETE", "/campaigns/{campaignId}", remove_campaign),
    AccountOperation("webhooks.fetchAll", "GET", "/webhooks", fetch_webhooks),
    AccountOperation("webhooks.subscribe", "POST", "/webhooks", subscribe),
    AccountOperation("webhooks.unsubscribe", "DELETE", "/webhooks/{url}", unsubscribe),
)
