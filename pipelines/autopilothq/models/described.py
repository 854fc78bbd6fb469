"""DATA: descriptions of the models and their columns, and the metrics that dashboards compute from them."""

from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """A number that a dashboard computes from a model's rows: the sum of `of`, divided by that of `per`, if given."""

    description: str
    of: str
    per: str | None = None
    """The column whose sum is the denominator; None if the metric is a sum."""


class Model(NamedTuple):
    """A model. `key` are the columns that identify a row; those in `nullable_key` may be null."""

    name: str
    description: str
    key: tuple[str, ...]
    columns: Mapping[str, str]
    metrics: Mapping[str, Metric] = {}
    nullable_key: tuple[str, ...] = ()


_COUNTS = {
    "first_delivered_at": "When the email was first delivered.",
    "last_delivered_at": "When the email was last delivered.",
    "deliveries": "How often it was delivered.",
    "opens": "How often it was opened.",
    "machine_opens": "How many of the opens a machine may have made; null if nothing says so.",
    "clicks": "How often a link in it was clicked.",
    "replies": "How often it was replied to.",
    "bounces": "How often it bounced.",
    "complaints": "How often it was marked as spam.",
    "unsubscribes": "How often its unsubscribe link was used.",
}
_MEASURES = {
    "first_delivered_at": "The first delivery.",
    "last_delivered_at": "The last delivery.",
    "delivered": "All deliveries.",
    "people": "Persons who got it, each once: the denominator of the rates.",
    "attempted": "Persons to whom it was sent, whether it was delivered or bounced, each once.",
    "opened": "Of people, those who opened it.",
    "human_opened": "Of people, those with an open that no machine is known to have made.",
    "clicked": "Of people, those who clicked.",
    "replied": "Of people, those who replied.",
    "bounced": "Persons whose mail bounced, each once; most of them are not among people.",
    "complained": "Of people, those who marked it as spam.",
    "unsubscribed": "Of people, those who unsubscribed.",
    "undelivered": "Persons who opened, clicked or the like, but have no delivery in the dataset. They are in no rate.",
    "opens": "All opens, by people or machines.",
    "machine_opens": "Opens that a machine may have made; null if nothing says so.",
    "clicks": "All clicks.",
    "replies": "All replies.",
    "bounces": "All bounces.",
    "complaints": "All spam complaints.",
    "unsubscribes": "All uses of the unsubscribe link.",
}
_RATES = {
    "open_rate": "opened / people.",
    "human_open_rate": "human_opened / people.",
    "click_rate": "clicked / people.",
    "click_to_open_rate": "clicked / opened.",
    "reply_rate": "replied / people.",
    "bounce_rate": "bounced / people.",
    "bounce_rate_of_attempted": "bounced / attempted.",
    "complaint_rate": "complained / people.",
    "unsubscribe_rate": "unsubscribed / people.",
}
_EMAIL = {
    "email_id": "The id of the email.",
    "email_name": "Its name, as of its last event that has both a name and a journey, or at least a name.",
    "email_subject": "Its subject line, as of the same event.",
    "campaign_id": "The id of its journey, as of the same event.",
    "campaign_name": "The name of its journey, as of the same event.",
    "transactional": "Whether it is transactional, as of the same event.",
}
_METRICS = {
    "total_delivered": Metric("Deliveries.", "delivered"),
    "total_opens": Metric("Opens.", "opens"),
    "total_clicks": Metric("Clicks.", "clicks"),
    "total_bounces": Metric("Bounces.", "bounces"),
    "total_complaints": Metric("Spam complaints.", "complaints"),
    "total_unsubscribes": Metric("Unsubscribes.", "unsubscribes"),
}
_SHARES = {
    "average_open_rate": Metric("Persons who opened, of the people delivered.", "opened", "people"),
    "average_click_rate": Metric("Persons who clicked, of the people delivered.", "clicked", "people"),
    "average_bounce_rate": Metric("Persons whose mail bounced, of those it was sent to.", "bounced", "attempted"),
    "average_complaint_rate": Metric("Persons who complained, of the people delivered.", "complained", "people"),
    "average_unsubscribe_rate": Metric("Persons who unsubscribed, of the people delivered.", "unsubscribed", "people"),
}
_PERSON = "The contact's email in lower case, else the user id, else the anonymous id."
_WHEN = "When it occurred; the time of receipt if its own cannot be read."

MODELS = (
    Model(
        "email_overview",
        "One row per email: what became of it, in numbers and rates.",
        ("email_id",),
        _EMAIL | _MEASURES | _RATES,
        _METRICS | _SHARES,
    ),
    Model(
        "journey_overview",
        "One row per journey: what became of its emails. A person who got several of them is counted once.",
        ("campaign_id",),
        {
            "campaign_id": "The id of the journey.",
            "campaign_name": "Its name, as of its last event that has one.",
            "emails": "How many emails it has.",
        }
        | _MEASURES
        | _RATES,
        _METRICS | _SHARES,
    ),
    Model(
        "link_overview",
        "One row per email and link that was clicked.",
        ("email_id", "link_id", "link_url"),
        {
            "email_id": "The id of the email.",
            "email_name": "The email's name.",
            "campaign_id": "The id of its journey.",
            "campaign_name": "The name of its journey.",
            "link_id": "The id of the link.",
            "link_url": "Where it leads.",
            "clicks": "All clicks.",
            "clickers": "Persons who clicked it, each once.",
            "clicked": "Of people, those who clicked it.",
            "people": "Persons who got the email, each once.",
            "click_rate": "clicked / people.",
            "first_clicked_at": "The first click.",
            "last_clicked_at": "The last click.",
        },
        {"total_link_clicks": Metric("Clicks.", "clicks"), "total_clickers": Metric("Persons per link.", "clickers")},
        ("link_id", "link_url"),
    ),
    Model(
        "person_email",
        "One row per person and email of any of the seven events: when each occurred first, and how often.",
        ("person", "email_id"),
        {
            "person": _PERSON,
            "email_id": "The id of the email.",
            "first_opened_at": "When the person first opened it.",
            "first_clicked_at": "When the person first clicked a link in it.",
            "first_replied_at": "When the person first replied.",
            "first_bounced_at": "When it first bounced.",
            "first_complained_at": "When the person first marked it as spam.",
            "first_unsubscribed_at": "When the person first unsubscribed.",
        }
        | _COUNTS,
        {"person_emails": Metric("Deliveries.", "deliveries")},
    ),
    Model(
        "person_timeline",
        "One row per message of a person: events, identifies, page views and so on, with the details of emails.",
        ("type", "id"),
        {
            "person": _PERSON,
            "occurred_at": _WHEN,
            "type": "track, identify, alias, page, screen or group.",
            "event": "The event's name in snake_case.",
            "event_text": "The event's name as it was sent.",
            "id": "The message's id.",
            "received_at": "When Segment received the message.",
            "loaded_at": "When the load that stored it processed it.",
            "user_id": "The user id of the message.",
            "anonymous_id": "The anonymous id of the message.",
            "email": "The email address in the message, as sent.",
            "contact_id": "The contact's id in Autopilot.",
            "campaign_id": "The id of the journey.",
            "campaign_name": "The name of the journey.",
            "email_id": "The id of the email.",
            "email_name": "The name of the email.",
            "email_subject": "The subject line of the email.",
            "link_url": "Where the link that was clicked leads.",
            "name": "The name of the page or screen.",
            "group_id": "The group's id.",
        },
    ),
    Model(
        "domain_health",
        "One row per mailbox domain, of persons known by an email. Providers judge mails: compare their limits with the"
        " two columns per mail.",
        ("domain",),
        {"domain": "What follows the last @ of the email."}
        | _MEASURES
        | _RATES
        | {
            "bounces_per_mail": "bounces / (delivered + bounces).",
            "complaints_per_mail": "complaints / delivered.",
        },
        _METRICS
        | _SHARES
        | {"average_complaints_per_mail": Metric("Complaints, of the deliveries.", "complaints", "delivered")},
    ),
    Model(
        "identities",
        "One row per person, with the identity that it belongs to. Persons share an identity if messages show them with"
        " the same user id or contact id, or if an alias joins them, over at most four such steps. An id of more than"
        " ten persons joins nobody.",
        ("person",),
        {
            "identity": "The person of the identity that was seen first.",
            "person": _PERSON,
            "email": "The person, if it is an email.",
            "user_id": "The person's user id; the greatest of several.",
            "user_ids": "How many user ids the person has.",
            "contact_id": "The contact's id in Autopilot; the greatest of several.",
            "joined_by": "What joins the person to others: user id, contact id, alias, or nothing.",
            "persons": "How many persons the identity has.",
            "messages": "How many messages the person has.",
            "first_seen_at": "The person's first message.",
            "last_seen_at": "The person's last message.",
        },
        {"total_messages": Metric("Messages.", "messages")},
    ),
    Model(
        "daily",
        "One row per day (UTC): what happened on it, whenever the emails were delivered.",
        ("day",),
        {
            "day": "The day in UTC; null for events without a time that can be read.",
            "delivered": "Deliveries.",
            "opens": "Opens.",
            "machine_opens": "Opens that a machine may have made; null if nothing says so.",
            "clicks": "Clicks.",
            "replies": "Replies.",
            "bounces": "Bounces.",
            "complaints": "Spam complaints.",
            "unsubscribes": "Uses of the unsubscribe link.",
            "people": "Persons to whom something was delivered.",
            "openers": "Persons who opened something.",
            "clickers": "Persons who clicked something.",
            "repliers": "Persons who replied.",
            "bounced": "Persons whose mail bounced.",
            "complainers": "Persons who marked something as spam.",
            "unsubscribers": "Persons who unsubscribed.",
        },
        _METRICS,
        ("day",),
    ),
)
BY_NAME = {model.name: model for model in MODELS}
