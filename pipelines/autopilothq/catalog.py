"""DATA: the events, tables, columns, types, limits and reasons of the warehouse (docs/contract/warehouse.md).

Everything else is derived from this file: Arrow schemas, dlt's column hints, the `schema` command, the documentation's
tables. A new property, event, table or limit is a line here. It is one file, however long, so that each of these
changes touches this file alone (tests/test_extending.py).
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Type = Literal["text", "bigint", "double", "bool", "timestamp"]


class Column(NamedTuple):
    """A column that exists from the first load on. `path` leads to its value in the message, or in its `context`."""

    name: str
    type: Type
    description: str
    path: tuple[str, ...] = ()


class Table(NamedTuple):
    """A table of the dataset. `key` are the columns that make a row unique; it is empty if none do."""

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ("id",)


KEYS = (
    Column("id", "text", "The message's id; a digest of its line if the message has none.", ("messageId",)),
    Column("received_at", "timestamp", "When Segment received the message.", ("receivedAt",)),
    Column("uuid_ts", "timestamp", "When the load that stored the row processed it."),
)
IDENTITY = (
    Column(
        "anonymous_id",
        "text",
        "The message's anonymousId; the contact's email if the message has neither a user id nor an anonymous id.",
        ("anonymousId",),
    ),
    Column("user_id", "text", "The id of the contact in your own systems.", ("userId",)),
)
EVENT = (
    Column("event", "text", "The event's name in snake_case, which is the name of its table.", ("event",)),
    Column("event_text", "text", "The event's name as it was sent.", ("event",)),
)
TIMESTAMPS = (
    Column("original_timestamp", "timestamp", "The time of the event on the sender's clock.", ("originalTimestamp",)),
    Column("sent_at", "timestamp", "When the message was sent, on the sender's clock.", ("sentAt",)),
    Column("timestamp", "timestamp", "The time of the event, corrected for the sender's clock.", ("timestamp",)),
)
CONTEXT = (
    Column("context_traits_email", "text", "The contact's email address.", ("traits", "email")),
    Column("context_traits_contact_id", "text", "The contact's id in Autopilot.", ("traits", "contact_id")),
    Column("context_library_name", "text", "The library that sent the message.", ("library", "name")),
    Column("context_library_version", "text", "The version of that library.", ("library", "version")),
    Column("context_integration_name", "text", "The integration that sent the message.", ("integration", "name")),
    Column("context_integration_version", "text", "The version of that integration.", ("integration", "version")),
    Column("context_ip", "text", "The IP address that the message came from.", ("ip",)),
    Column("context_user_agent", "text", "The user agent of the device.", ("userAgent",)),
)
COMMON = KEYS + IDENTITY + TIMESTAMPS + CONTEXT

PROPERTIES = (
    Column("campaign_id", "text", "The id of the journey.", ("campaign_id",)),
    Column("campaign_name", "text", "The name of the journey.", ("campaign_name",)),
    Column("email_id", "text", "The id of the email.", ("email_id",)),
    Column("email_name", "text", "The name of the email.", ("email_name",)),
    Column("email_subject", "text", "The subject line of the email.", ("email_subject",)),
    Column("transactional", "bool", "Whether the email is transactional, not a one-time send.", ("transactional",)),
)
LINK = (
    Column("link_id", "text", "The id of the link that was clicked.", ("link_id",)),
    Column("link_url", "text", "The URL of the link that was clicked.", ("link_url",)),
)


class EmailEvent(NamedTuple):
    """An event of Autopilot: its name as sent, what happened, and the columns that only it has."""

    name: str
    description: str
    columns: tuple[Column, ...] = ()

    @property
    def table(self) -> str:
        """The name of the event's table. Example: `email_marked_as_spam`."""
        return self.name.lower().replace(" ", "_")


EVENTS = (
    EmailEvent("Email Bounced", "The receiving server could not or would not accept the email."),
    EmailEvent("Email Delivered", "The email was delivered to the receiving server."),
    EmailEvent("Email Clicked", "The recipient clicked a link in the email.", LINK),
    EmailEvent("Email Marked as Spam", "The recipient marked the email as spam."),
    EmailEvent("Email Opened", "The recipient opened the HTML email."),
    EmailEvent("Email Unsubscribed", "The recipient clicked the email's subscription management link."),
    EmailEvent("Email Replied", "The recipient replied to the email."),
)

# Word stems in the name of an unknown event that suggest one of these events, for the proposal of a mapping.
EVENT_WORDS: dict[str, tuple[str, ...]] = {
    "Email Bounced": ("bounc",),
    "Email Delivered": ("deliver", "receiv"),
    "Email Clicked": ("click",),
    "Email Marked as Spam": ("spam", "abuse", "complain", "junk"),
    "Email Opened": ("open",),
    "Email Unsubscribed": ("unsub", "optout"),
    "Email Replied": ("repl",),
    "Sent email": ("sent", "send"),
}
# Prefixes of columns that only one event has.
EVENTS_OF_COLUMNS = {
    "bounce": "Email Bounced",
    "link_": "Email Clicked",
    "utm_": "Email Clicked",
    "unsubscribe_": "Email Unsubscribed",
    "spam_": "Email Marked as Spam",
    "repl": "Email Replied",
    "reaction_": "Reacted to email",
    "forwarded_": "Forwarded email",
    "email_status": "Invalid email",
}

TRACKS = Table("tracks", "Every event, with the columns that all events have.", COMMON + EVENT)
EVENT_TABLES = tuple(
    Table(event.table, f"{event.name}: {event.description}", COMMON + EVENT + PROPERTIES + event.columns)
    for event in EVENTS
)
EVENT_TABLE_NAMES = tuple(table.name for table in EVENT_TABLES)
EVENTS_RESOURCE = "other_events"  # the tables of events that the catalogue does not know
EVENT_DESCRIPTION = "An event other than Autopilot's seven; its properties are columns."

# The other types of messages: type, table, and the object whose fields become columns.
IDENTIFIES = Table("identifies", "Every identify: the traits of a contact as they were sent.", COMMON)
GROUPS = Table(
    "groups",
    "Every group: a person's company or account.",
    (*COMMON, Column("group_id", "text", "The group's id.", ("groupId",))),
)


def _table_of_views(kind: str) -> Table:
    """Returns the table of page views or of screen views."""
    name = Column("name", "text", f"The {kind}'s name.", ("name",))
    category = Column("category", "text", f"The {kind}'s category.", ("category",))
    return Table(f"{kind}s", f"Every {kind} view.", (*COMMON, name, category))


KINDS: tuple[tuple[str, Table, str | None], ...] = (
    ("identify", IDENTIFIES, "traits"),
    (
        "alias",
        Table(
            "aliases",
            "Every alias: two ids of one person.",
            (*COMMON, Column("previous_id", "text", "The id that the person had before.", ("previousId",))),
        ),
        None,
    ),
    ("page", _table_of_views("page"), "properties"),
    ("screen", _table_of_views("screen"), "properties"),
    ("group", GROUPS, "traits"),
)
USERS = Table(
    "users",
    "One row per user id: the last value of each trait, by the time of its receipt.",
    (
        Column("id", "text", "The user id."),
        Column("received_at", "timestamp", "When Segment received the user's last identify."),
        Column("uuid_ts", "timestamp", "When the last load with a message about the user made the row."),
        *CONTEXT,
    ),
)
# Only what the messages say about the group; who sent them, and from where, is in `groups`.
ACCOUNTS = Table(
    "accounts",
    "One row per group: the last value of each trait, by the time of its receipt.",
    (
        Column("id", "text", "The group's id."),
        Column("received_at", "timestamp", "When Segment received the last message about the group."),
        Column("uuid_ts", "timestamp", "When the last load with a message about the group made the row."),
    ),
)


class Latest(NamedTuple):
    """A table with the last value of each trait of the users or groups that messages of a type are about.

    `kind` is that type of message, `messages` its table, and `key` the column there that holds the user's or group's
    id. Columns in `left_out`, and those that begin with `left_out_prefix`, are not traits.
    """

    table: Table
    kind: str
    messages: Table
    key: str
    left_out: frozenset[str]
    left_out_prefix: str | None = None

    def has_trait(self, column: str) -> bool:
        """Returns whether a column of the messages is a trait. Example: `LATEST[0].has_trait("plan")`."""
        is_other = self.left_out_prefix is not None and column.startswith(self.left_out_prefix)
        return column not in self.left_out and not is_other


CONTEXT_NAMES = frozenset(column.name for column in CONTEXT)
_OWN_NAMES = frozenset(column.name for column in COMMON) - CONTEXT_NAMES
LATEST = (
    Latest(USERS, "identify", IDENTIFIES, "user_id", _OWN_NAMES),
    Latest(ACCOUNTS, "group", GROUPS, "group_id", _OWN_NAMES | {"group_id"}, "context_"),
)

REJECTS = Table(
    "_rejects",
    "Lines that no table can hold, complete, with the reason.",
    (
        Column("id", "text", "A digest of the file, the line's number and the line: each place has a row of its own."),
        Column("file", "text", "The file that holds the line."),
        Column("line", "bigint", "The line's number in the file, from 1."),
        Column("reason", "text", "Why it was rejected, one word."),
        Column("message", "text", "What is wrong with it, for a person."),
        Column("raw", "text", "The line itself, up to 1 MiB."),
        Column("rejected_at", "timestamp", "When the load that rejected it processed it."),
    ),
)
DISCARDS = Table(
    "_discards",
    "Values that did not fit their column: the cell is null, the row is there, the value is here.",
    (
        Column("id", "text", "A digest of table, row, column and value."),
        Column("table_name", "text", "The table that holds the row."),
        Column("row_id", "text", "The row's id."),
        Column("column_name", "text", "The column's name, unshortened; the key as sent if there is no column for it."),
        Column("value", "text", "The value as JSON text."),
        Column("reason", "text", "Why it was discarded."),
        Column("received_at", "timestamp", "When Segment received the message."),
        Column("discarded_at", "timestamp", "When the load that discarded it processed it."),
    ),
)
AUDIT = Table(
    "_audit",
    "One row per file and version of it that was loaded: lines = stored + duplicates + rejected + skipped.",
    (
        Column("file", "text", "The file's URL or path."),
        Column("version", "text", "The file's version: its etag, or its size and the time of its last change."),
        Column("size", "bigint", "The file's size in bytes, as stored."),
        Column("lines", "bigint", "Its lines, blank ones not counted."),
        Column("stored", "bigint", "Lines that became rows."),
        Column("duplicates", "bigint", "Lines whose message was stored already, or comes earlier in the same load."),
        Column("rejected", "bigint", "Lines that were rejected."),
        Column("first_received_at", "timestamp", "The earliest receipt of a message in it."),
        Column("last_received_at", "timestamp", "The latest receipt of a message in it."),
        Column("load_id", "text", "dlt's load; the file counts as loaded once `_dlt_loads` has that load."),
        Column("loaded_at", "timestamp", "When that load processed it."),
        Column("skipped", "bigint", "Lines whose messages were not requested; they are loaded once they are."),
        Column("tables", "text", "What of the file is loaded, as JSON; null if all tables are."),
        Column("mended", "bigint", "Texts of adopted rows, cut at 512 characters, that its messages made whole."),
    ),
    key=("file", "version"),
)
BOOKS = (REJECTS, DISCARDS, AUDIT)
LOCK_TABLE = Table(
    "_locks",
    "Which run is at work in the dataset: its lease, which it renews; `_locks_send` has those of runs that send.",
    (
        Column("owner", "text", "The run: a random word, the machine and the process."),
        Column("renewed_at", "timestamp", "When the lease was renewed; a minute later it is void."),
    ),
    key=("owner",),
)
LOCKS = LOCK_TABLE.name
PROFILES = Table(
    "_profiles",
    "Whose events were asked for from Segment's Profile API or from Ortto, and up to when they are loaded.",
    (
        Column("space", "text", "The space of Segment Unify; of Ortto `ortto-` and a digest of the account."),
        Column("person", "text", "The person's id there: email:..., user_id:..., anonymous_id:... or contact_id:..."),
        Column("scope", "text", "A digest of which events were asked for, and of which source."),
        Column("watermark", "timestamp", "Up to when the person's events are loaded; null if no answer could be read."),
        Column("asked_at", "timestamp", "When the person's events were asked for last."),
        Column("load_id", "text", "dlt's load; the row counts once `_dlt_loads` has that load."),
    ),
    key=("space", "person", "scope"),
)

# The records of an account besides its events (docs/contract/autopilot-api.md).

SCANNED = (
    Column("received_at", "timestamp", "When the scan began that saw it last."),
    Column("uuid_ts", "timestamp", "When the load that stored the row processed it."),
)
_PERSONAL = (
    "Company", "Email", "Fax", "FirstName", "Industry", "LastName", "LeadSource", "LinkedIn", "MailingCity",
    "MailingCountry", "MailingPostalCode", "MailingState", "MailingStreet", "MobilePhone", "Name", "NumberOfEmployees",
    "Phone", "Salutation", "Status", "Title", "Twitter", "Website",
)  # fmt: skip
CONTACTS = Table(
    "contacts",
    "Every contact of the account, as the last scan or a later hook has it; custom fields are columns `custom_...`.",
    (
        Column("contact_id", "text", "The contact's id in Autopilot."),
        *SCANNED,
        Column("deleted_at", "timestamp", "When the first complete scan began that no longer found the contact."),
        Column("created_at", "timestamp", "When the contact was created."),
        Column("updated_at", "timestamp", "When the contact was last changed; email activity may not count."),
        Column("first_visit_at", "timestamp", "The contact's first visit of a tracked page."),
        Column("first_conversion_at", "timestamp", "The first form that the contact sent."),
        Column("latest_subscribe", "timestamp", "When the contact last subscribed."),
        Column("unsubscribed", "bool", "Whether the contact wants no email."),
        Column("api_originated", "bool", "Whether the contact was created through the API."),
        Column("owner_name", "text", "The contact's owner."),
        Column("lists", "text", "The ids of the contact's lists, as JSON."),
        Column("anywhere_page_visits", "text", "The tracked pages that the contact visited, as JSON."),
        Column("anywhere_form_submits", "text", "The forms that the contact sent, as JSON."),
        Column("anywhere_utm", "text", "The UTM parameters that the contact came with, as JSON."),
        *(
            Column(re.sub("(?<!^)(?=[A-Z])", "_", field).lower(), "text", f"The contact's field {field}.")
            for field in _PERSONAL
        ),
    ),
    key=("contact_id",),
)
LISTS = Table(
    "lists",
    "The account's lists, as they are now.",
    (Column("list_id", "text", "The list's id."), *SCANNED, Column("title", "text", "The list's name.")),
    key=("list_id",),
)
LISTS_CONTACTS = Table(
    "lists_contacts",
    "Which contacts are on which list now.",
    (Column("list_id", "text", "The list's id."), Column("contact_id", "text", "The contact's id."), *SCANNED),
    key=("list_id", "contact_id"),
)
SEGMENTS = Table(
    "smart_segments",
    "The account's smart segments, as they are now.",
    (Column("segment_id", "text", "The segment's id."), *SCANNED, Column("title", "text", "The segment's name.")),
    key=("segment_id",),
)
SEGMENTS_CONTACTS = Table(
    "smart_segments_contacts",
    "Which contacts are in which smart segment now.",
    (Column("segment_id", "text", "The segment's id."), Column("contact_id", "text", "The contact's id."), *SCANNED),
    key=("segment_id", "contact_id"),
)
CUSTOM_FIELDS = Table(
    "custom_fields",
    "The custom fields that the account defines now.",
    (
        Column("name", "text", "The field's name."),
        *SCANNED,
        Column("field_type", "text", "Its type: string, integer, float, boolean or date."),
    ),
    key=("name",),
)
TRIGGERS = Table(
    "triggers",
    "The triggers that journeys can be entered by now.",
    (
        Column("trigger_id", "text", "The trigger's id."),
        *SCANNED,
        Column("journey", "text", "The journey's name."),
        Column("trigger_type", "text", "What kind of trigger it is."),
    ),
    key=("trigger_id",),
)
AUTOPILOT_CURRENT = (LISTS, LISTS_CONTACTS, SEGMENTS, SEGMENTS_CONTACTS, CUSTOM_FIELDS, TRIGGERS)
ACCOUNT = (CONTACTS, *AUTOPILOT_CURRENT)

# The records of an account of Ortto (docs/contract/ortto-pull.md).


class OrttoPersonField(NamedTuple):
    """A field of people that every account of Ortto has, with its column."""

    id: str
    column: str
    type: Type
    description: str


ORTTO_PERSON_FIELDS = (
    OrttoPersonField("str::email", "email", "text", "The person's email address."),
    OrttoPersonField("str::ei", "external_id", "text", "The person's id in your own systems."),
    OrttoPersonField("str::first", "first_name", "text", "The person's first name."),
    OrttoPersonField("str::last", "last_name", "text", "The person's last name."),
    OrttoPersonField("phn::phone", "phone", "text", "The person's phone number, with the country's code."),
    OrttoPersonField("geo::city", "city", "text", "The person's city."),
    OrttoPersonField("geo::region", "region", "text", "The person's region."),
    OrttoPersonField("geo::country", "country", "text", "The person's country."),
    OrttoPersonField("str::postal", "postal_code", "text", "The person's postal code."),
    OrttoPersonField("dtz::b", "birthday", "text", "The person's date of birth, as YYYY-MM-DD."),
    OrttoPersonField("tags", "tags", "text", "The names of the person's tags, as JSON."),
    OrttoPersonField("u4s::t", "tag_ids", "text", "The ids of the person's tags, as JSON."),
    OrttoPersonField("bol::p", "email_permission", "bool", "Whether the person may be sent email."),
    OrttoPersonField("bol::sp", "sms_permission", "bool", "Whether the person may be sent SMS."),
    OrttoPersonField("bol::gdpr", "gdpr", "bool", "Whether GDPR holds for the person."),
    OrttoPersonField("str::s-ctx", "subscribe_context", "text", "How the person came to be subscribed."),
    OrttoPersonField("str::u-ctx", "unsubscribe_context", "text", "How the person came to be unsubscribed."),
)
_ORTTO_ACTIVITIES = (
    ("s", "sent_email"), ("r", "received_email"), ("o", "opened_email"), ("c", "clicked_email"),
    ("b", "bounced_email"), ("u-all", "unsubscribed_from_email"), ("s-ab", "reported_abuse"),
    ("re", "replied_to_email"),
)  # fmt: skip
ORTTO_TIMES = tuple(
    OrttoPersonField(f"tme::{kind}!{which[0]}", f"{which}_{name}_at", "timestamp", f"The {which} activity act::{kind}.")
    for kind, name in _ORTTO_ACTIVITIES
    for which in ("first", "last")
)
"""The times of a person's first and last activity of each kind; some accounts may lack these fields."""
ORTTO_PEOPLE = Table(
    "ortto_people",
    "Every person that Ortto has, or had when a scan last found them; custom fields are columns.",
    (
        Column("contact_id", "text", "The person's id in Ortto."),
        *SCANNED,
        Column("deleted_at", "timestamp", "When the first complete scan began that no longer found the person."),
        *(Column(field.column, field.type, field.description) for field in (*ORTTO_PERSON_FIELDS, *ORTTO_TIMES)),
    ),
    key=("contact_id",),
)
ORTTO_AUDIENCES = Table(
    "ortto_audiences",
    "Ortto's audiences, as they are now.",
    (Column("audience_id", "text", "The audience's id."), *SCANNED, Column("name", "text", "The audience's name.")),
    key=("audience_id",),
)
ORTTO_AUDIENCE_MEMBERS = Table(
    "ortto_audience_members",
    "Who is in which audience of Ortto now.",
    (Column("audience_id", "text", "The audience's id."), Column("contact_id", "text", "The person's id."), *SCANNED),
    key=("audience_id", "contact_id"),
)
ORTTO_TAGS = Table(
    "ortto_tags",
    "Ortto's tags, as they are now.",
    (Column("tag_id", "text", "The tag's id."), *SCANNED, Column("name", "text", "The tag's name.")),
    key=("tag_id",),
)
ORTTO_CAMPAIGNS = Table(
    "ortto_campaigns",
    "Ortto's campaigns, journeys and playbooks, as they are now, with what Ortto counts.",
    (
        Column("campaign_id", "text", "The campaign's id."),
        *SCANNED,
        Column("name", "text", "The campaign's name."),
        Column("type", "text", "What it is: email, journey, playbook, sms, push or whatsapp."),
        Column("state", "text", "Whether it is a draft, on, off, sent and so on."),
        Column("delivered", "bigint", "How many emails were delivered."),
        Column("opens", "bigint", "How often they were opened."),
        Column("clicks", "bigint", "How often their links were clicked."),
    ),
    key=("campaign_id",),
)
ORTTO_CUSTOM_FIELDS = Table(
    "ortto_custom_fields",
    "The custom fields of people that the account of Ortto defines now.",
    (
        Column("field_id", "text", "The field's id, such as str:cm:job-title."),
        *SCANNED,
        Column("name", "text", "The field's name."),
        Column("display_type", "text", "Its type, such as text, decimal or date."),
    ),
    key=("field_id",),
)
# What Ortto counts for a campaign: the column here, and the keys in Ortto's reports and lists, the preferred one first.
ORTTO_COUNTS: dict[str, tuple[str, ...]] = {
    "delivered": ("delivered", "deliveries"),
    "opened": ("opened", "opens"),
    "clicked": ("clicked", "clicks"),
    "bounced": ("bounced", "bounces"),
    "unsubscribed": ("unsubscribed", "unsubscribes"),
    "invalid": ("invalid",),
}
ORTTO_CAMPAIGN_REPORTS = Table(
    "ortto_campaign_reports",
    "What Ortto counts for each campaign that was sent: `status` compares it with the events that are stored.",
    (
        Column("campaign_id", "text", "The campaign's id."),
        *SCANNED,
        Column("campaign_name", "text", "The campaign's name."),
        Column("campaign_type", "text", "What it is: email, journey, playbook and so on."),
        Column("timeframe", "text", "The span of time that is counted, by Ortto's name; null for all time."),
        Column("counted_from", "timestamp", "When that span begins; null if Ortto does not say."),
        Column("counted_until", "timestamp", "When that span ends."),
        Column("last_updated", "timestamp", "When Ortto counted."),
        *(Column(name, "bigint", f"How many are {name}, as Ortto counts.") for name in ORTTO_COUNTS),
    ),
    key=("campaign_id",),
)
# The tables of events that these counts are compared with.
ORTTO_COUNTED = {
    "delivered": "email_delivered",
    "opened": "email_opened",
    "clicked": "email_clicked",
    "bounced": "email_bounced",
    "unsubscribed": "email_unsubscribed",
}
ORTTO_CURRENT = (
    ORTTO_AUDIENCES,
    ORTTO_AUDIENCE_MEMBERS,
    ORTTO_TAGS,
    ORTTO_CAMPAIGNS,
    ORTTO_CUSTOM_FIELDS,
    ORTTO_CAMPAIGN_REPORTS,
)
ORTTO_ACCOUNT = (ORTTO_PEOPLE, *ORTTO_CURRENT)
# Tables of an account's present state: a complete scan replaces all their rows.
CURRENT = (*AUTOPILOT_CURRENT, *ORTTO_CURRENT)

# A contact's maps of email activity: the map, its event, and the kind of bounce.
MAILS: tuple[tuple[str, str, str | None], ...] = (
    ("mail_received", "Email Delivered", None),
    ("mail_opened", "Email Opened", None),
    ("mail_clicked", "Email Clicked", None),
    ("mail_bounced", "Email Bounced", "soft"),
    ("mail_hardbounced", "Email Bounced", "hard"),
    ("mail_complained", "Email Marked as Spam", None),
    ("mail_unsubscribed", "Email Unsubscribed", None),
)
# The types that the API declares for custom fields.
FIELD_TYPES: dict[str, Type] = {
    "string": "text",
    "integer": "bigint",
    "float": "double",
    "boolean": "bool",
    "date": "timestamp",
}

MESSAGE_TABLES = (TRACKS, *(table for _, table, _ in KINDS))
# Tables that exist after any load, even without rows; all others are created with their first row.
ALWAYS = (TRACKS, *EVENT_TABLES, *BOOKS)

# Why a line is rejected: the error code of Segment's API if it has one, and an explanation.
REJECT_REASONS = {
    "not_json": "not JSON",
    "not_an_object": "JSON, but not an object",
    "truncated": "the file breaks off, is damaged or could not be read from here on",
    "line_too_long": "longer than 1 MiB",
    "unknown_type": "`type` is none of track, identify, alias, page, screen, group",
    "no_user_anon_id": "no `userId`, no `anonymousId` and no email",
    "event_not_defined": "a track without `event`",
    "event_not_string": "`event` is not text",
    "properties_not_object": "`properties` is not an object",
    "traits_not_object": "`traits` is not an object",
    "context_not_object": "`context` is not an object",
    "bad_answer": "an API's answer about a person that cannot be read; that person is asked for again next time",
    "no_id": "an API's object, or an adopted row of a user or an account, without the id that it is known by",
    "no_event_row": "a row of an adopted `tracks` that the table of its event, which was adopted too, does not have",
    "suppressed": "of a deleted person",
    "unreadable": "it cannot be read or stored",
}
# Why a value is discarded.
DISCARD_REASONS = {
    "does_not_fit": "it cannot become its column's type without loss",
    "not_a_time": "it cannot be read as a time",
    "not_text": "its text holds a NUL or half a surrogate pair, which warehouses cannot store",
    "not_a_number": "it is NaN or infinite",
    "same_column": "another key of the message has the same column",
    "too_many_columns": "its table has as many columns as the destination takes",
    "too_many_keys": "its message has more keys than any message needs",
    "too_many_tables": "the dataset has as many tables of events as it may, so its event has none of its own",
    "row_too_wide": "its row has as many values as the destination takes in one",
    "no_column": "its key has no ASCII letter or digit, so no column can be named after it",
}
# The reasons that stand for a limit: a load reports them for each table.
LIMIT_REASONS = ("too_many_columns", "too_many_keys", "too_many_tables", "row_too_wide")

# Limits that no sender can exceed (docs/contract/warehouse.md#limits).
MAX_NAME = 127  # bytes of a table's or a column's name: file names contain it, and have at most 255
MAX_KEYS = 10_000  # keys of one message
# Levels of nested objects and arrays, in a line and in a response of an API. Python's own limit depends on its version:
# it is at least 1,000, minus the calls around the reader.
MAX_DEPTH = 250
MAX_ANSWER_DEPTH = 500
MAX_EVENT_TABLES = 500  # of a dataset, in addition to Autopilot's seven; a setting
COLUMN_RESERVE = 100  # columns kept free for later catalogues, for users' own, and for dropped ones, which still count


class Limits(NamedTuple):
    """A destination's limits for a table: columns, bytes of a row and of a key, and names that no column can have.

    `row_bytes` and `key_bytes` are None if a row or a key has no such limit. A column whose name is in `reserved` or
    begins with one of `reserved_prefixes` gets a `_` in front.
    """

    columns: int
    row_bytes: int | None = None
    reserved: frozenset[str] = frozenset()
    reserved_prefixes: tuple[str, ...] = ()
    key_bytes: int | None = None


_POSTGRES_SYSTEM = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
# The limits that each destination documents, by dlt's name for it.
LIMITS: dict[str, Limits] = {
    # An entry of an index has up to 2,704 bytes: 8 of its header, 4 of the text's length, the text.
    "postgres": Limits(1_600, 8_160, _POSTGRES_SYSTEM, key_bytes=2_692),
    "redshift": Limits(1_600, None, _POSTGRES_SYSTEM | {"oid", "deletexid", "insertxid"}),
    "bigquery": Limits(
        10_000,
        None,
        frozenset({"_partitiontime", "_partitiondate", "loaded_at"}),
        ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier"),
    ),
    "mssql": Limits(1_024),
    "synapse": Limits(1_024),
    "fabric": Limits(1_024),
    "sqlalchemy": Limits(1_017),  # MySQL's; SQLite takes 2,000
    "dremio": Limits(800),
}
OTHER_LIMITS = Limits(2_000 + COLUMN_RESERVE)


Layout = Literal["partition", "cluster", "sort"]


# Names that no event's table can have. dlt names files after tables, and refuses names of devices on some systems; in a
# lake each table is a folder next to a file `init`.
FILE_NAMES = frozenset({"init", "aux", "con", "nul", "prn", *(f"{of}{n}" for of in ("com", "lpt") for n in range(10))})


class Native(NamedTuple):
    """How Segment's loader makes tables in a destination, where dlt would differ (docs/contract/warehouse.md#types).

    `types` maps the contract's types to the destination's. If `keyed`, a table's key is its PRIMARY KEY. Each column in
    `indexed` has an index. `zoned` tells whether times have a time zone. `copies` maps additional columns, in tables of
    messages and in those derived from them, to the columns that they repeat. `view` is the name of a view over each
    table of messages, with `{}` for the table's name. `layout` has the columns by which `tracks`, the largest table, is
    stored, with dlt's hint for each. The destination's names for indexes end with one of `index_suffixes`; names that
    begin with one of `own_prefixes` are reserved for its own tables.
    """

    types: Mapping[Type, str] = MappingProxyType({})
    keyed: bool = False
    indexed: tuple[str, ...] = ()
    zoned: bool = True
    copies: Mapping[str, str] = MappingProxyType({})
    view: str | None = None
    layout: Mapping[str, Layout] = MappingProxyType({})
    index_suffixes: tuple[str, ...] = ()
    own_prefixes: tuple[str, ...] = ()


# By dlt's name for the destination. With these, SQL written for Segment's tables runs here: PostgreSQL's round() takes
# no double precision, Redshift's DATEDIFF no zones, and Segment's page on BigQuery tells people to query the views.
NATIVE: dict[str, Native] = {
    "postgres": Native({"double": "numeric"}, keyed=True, indexed=("received_at",), index_suffixes=("_pkey", "_idx")),
    "redshift": Native(
        {"timestamp": "timestamp without time zone"}, zoned=False, layout=MappingProxyType({"received_at": "sort"})
    ),
    "bigquery": Native(
        copies={"loaded_at": "uuid_ts"},
        view="{}_view",
        layout=MappingProxyType({"received_at": "partition", "event": "cluster"}),
    ),
    "sqlalchemy": Native(own_prefixes=("sqlite_",)),
    "snowflake": Native(layout=MappingProxyType({"received_at": "cluster", "event": "cluster"})),
    "databricks": Native(layout=MappingProxyType({"received_at": "cluster", "event": "cluster"})),
}
OTHER_NATIVE = Native()

# Tables that Segment's or RudderStack's loader left in a warehouse (docs/contract/adopt.md).

# Columns that loaders and dlt add for their own use. They are left out: this load adds its own, or needs none.
LOADER_OWN_COLUMNS = frozenset({"uuid_ts", "loaded_at", "uuid", "_dlt_load_id", "_dlt_id"})
# Columns by which RudderStack's tables are recognised: its loader makes them, and Segment's does not.
RUDDERSTACK_MARKS = frozenset({"context_request_ip", "context_passed_ip", "context_destination_id"})
# What RudderStack's columns are called here, unless the table already has such a column; None leaves them out.
RUDDERSTACK_COLUMNS: dict[str, str | None] = {
    "channel": None,
    "record_id": None,
    "context_request_ip": "context_ip",
}
CUT = 512  # characters that Segment keeps of a text in PostgreSQL and Redshift
ADOPTED = "adopted "  # the beginning of an adopted file's or table's version in `_audit`; the table's name follows
# Prefixes of the tables in a loader's schema that are not adopted, because they hold no messages.
NOT_ADOPTED = ("_dlt_", "_locks", "rudder_")

# The folder of an archive. It has a folder for each source, which has one for each day, named by its first millisecond.
ARCHIVE_FOLDER = "segment-logs"
# A file in the folders of an unfinished export: no load reads anything next to it or below it.
EXPORT_MARK = ".autopilothq-export"


def event_table(name: str) -> Table:
    """Returns the table of one of Autopilot's seven events, or the table that any other event has at first."""
    known = TABLES.get(name)
    return known if known in EVENT_TABLES else Table(name, EVENT_DESCRIPTION, COMMON + EVENT)


def key_of(table: str) -> tuple[str, ...]:
    """Returns the key columns of a table, or of an event's table if the catalogue does not have it.

    Example: `key_of("_audit") == ("file", "version")`.
    """
    return (TABLES.get(table) or event_table(table)).key


def resource_of(table: str) -> str:
    """Returns the resource that hands out a table's rows. Example: `resource_of("shoe_bought") == "other_events"`."""
    return table if table in TABLES else EVENTS_RESOURCE


COMMON_NAMES = frozenset(column.name for column in COMMON + EVENT)
PROPERTY_TYPES: dict[str, Type] = {column.name: column.type for column in PROPERTIES + LINK}
DECLARED_TYPES: dict[str, Type] = {column.name: column.type for column in CONTEXT + PROPERTIES + LINK}

# Sending to Autopilot (docs/contract/destination.md).

# Fields that every account has, and the paths of the traits that set them; only letters and digits are compared.
STANDARD_FIELDS: dict[str, tuple[str, ...]] = {
    "Email": ("email",),
    "FirstName": ("firstname",),
    "LastName": ("lastname",),
    "Salutation": ("salutation",),
    "Company": ("company", "company.name"),
    "NumberOfEmployees": ("numberofemployees", "employees", "company.employeecount"),
    "Title": ("title", "jobtitle"),
    "Industry": ("industry",),
    "Phone": ("phone", "phones"),
    "MobilePhone": ("mobilephone",),
    "Fax": ("fax",),
    "Website": ("website", "websites"),
    "Twitter": ("twitter",),
    "LinkedIn": ("linkedin",),
    "Status": ("status",),
    "LeadSource": ("leadsource",),
    "MailingStreet": ("mailingstreet", "address.street", "address", "street"),
    "MailingCity": ("mailingcity", "address.city", "city"),
    "MailingState": ("mailingstate", "address.state", "state"),
    "MailingPostalCode": (
        "mailingpostalcode",
        *(f"{before}{name}" for before in ("address.", "") for name in ("postalcode", "zip", "zipcode")),
    ),
    "MailingCountry": ("mailingcountry", "address.country", "country"),
    "unsubscribed": ("unsubscribed",),
    "_NewEmail": ("newemail",),
}
# Traits that Segment's libraries write as arrays. Their first value counts, unless another trait sets the same field.
FIRST_OF_ARRAY = ("phones", "websites")
# Autopilot's own keys, which are sent as they are spelt, with the type that each takes.
OWN_KEYS: dict[str, str] = {"_autopilot_list": "string", "_autopilot_session_id": "string", "notify": "boolean"}
# Traits, as an object or as one text, that set several fields; null clears all of them.
WHOLES: dict[str, tuple[str, ...]] = {
    "name": ("FirstName", "LastName"),
    "address": ("MailingStreet", "MailingCity", "MailingState", "MailingPostalCode", "MailingCountry"),
}
CUSTOM_TYPES = ("string", "integer", "float", "boolean", "date")
# Autopilot's names in the `integrations` of a message; the first one takes precedence.
INTEGRATIONS = ("AutopilotHQ", "Autopilot")
ORTTO_INTEGRATIONS = ("Ortto", "Ortto (Actions)")


class Epoch(NamedTuple):
    """A unit of epoch times: a second has `per_second` of them, and numbers `least <= n < below` are in this unit."""

    least: int
    below: int
    per_second: int


# Both seconds and milliseconds reach from 1973 to 2286. Smaller numbers do not count as times.
EPOCHS = (Epoch(10**8, 10**10, 1), Epoch(10**11, 10**13, 1000))

# The delivery status of a message.
STATUSES = {
    "delivered": "Autopilot took it.",
    "refused": "Autopilot, or a rule before it, said no; it is tried again when it is sent again, unless Autopilot"
    " refused the contact for its values (400), and they are the same.",
    "failed": "Autopilot could not be reached or was out of order; it is tried again when it is sent again.",
    "unknown": "It was sent, and whether it was carried out is not known; it is not sent again.",
}
DELIVERIES = Table(
    "_deliveries",
    "What became of every message to Autopilot: a row for each attempt, and for each trigger of an event.",
    (
        Column("message_id", "text", "The message's id; of a query's row a digest of the person and the traits."),
        Column("kind", "text", "identify or track; list, delete, eject or unsubscribe of a request about one contact."),
        Column("event", "text", "The event's name, of a track."),
        Column("audience", "text", "The audience's name in snake_case, if a member came or left."),
        Column("user_id", "text", "The id of the contact in your own systems."),
        Column("email", "text", "The contact's email; the id in Autopilot of a contact that was named by it."),
        Column("trigger_id", "text", "The trigger, of a track; the journey that a contact is taken out of."),
        Column("endpoint", "text", "The request: method and path; null if none was made."),
        Column(
            "content",
            "text",
            "A digest of what was sent of a query's row, or of what was refused; true or false of an audience; the run"
            " that began a job; `from` and a digest of the old address, if it was changed.",
        ),
        Column("status", "text", f"{', '.join(STATUSES)}."),
        Column("http_status", "bigint", "The status of the last answer."),
        Column("message", "text", "Autopilot's message, or why nothing was sent."),
        Column("remarks", "text", "Traits that were left out or that the account has no field for, and why, as JSON."),
        Column("attempts", "bigint", "How often the request was tried."),
        Column("sent_at", "timestamp", "When it was sent, or decided not to be."),
        Column("run", "text", "The run that did it."),
    ),
    key=(),  # none, because the trigger is null in rows that are only about a contact
)
ORTTO_DELIVERIES = DELIVERIES._replace(
    name="_deliveries_ortto",
    description="What became of every message to Ortto: as `_deliveries`, where the trigger is a custom activity.",
)
DELIVERY_LOGS = (DELIVERIES, ORTTO_DELIVERIES)

# What was forwarded to APIs that take Segment's messages (docs/contract/forward.md). `forget` finds rows by their ids.
FORWARDS = Table(
    "_forwards",
    "What became of every message that was forwarded: a row for each attempt to deliver it.",
    (
        Column("message_id", "text", "The message's id; a digest if it has none."),
        Column("kind", "text", "The message's type."),
        Column("event", "text", "The event's name, of a track."),
        Column("user_id", "text", "The message's userId."),
        Column("anonymous_id", "text", "The message's anonymousId; the email if it has neither."),
        Column("email", "text", "The person's first email that is neither of these two ids, with its case folded."),
        Column("target", "text", "Where it was sent to: the URL, and eight digits that stand for the write key."),
        Column("status", "text", "delivered, refused or failed."),
        Column("http_status", "bigint", "The status of the last answer."),
        Column("message", "text", "The server's message, or why nothing was sent."),
        Column("attempts", "bigint", "How often the request was tried."),
        Column("sent_at", "timestamp", "When it was sent, or decided not to be."),
        Column("run", "text", "The run that did it."),
    ),
    key=(),
)

# Autopilot's REST hooks (docs/contract/autopilot-hooks.md).


class HookEvent(NamedTuple):
    """An event that Autopilot posts to a URL: its name, what happened, and the spelling that some accounts expect."""

    name: str
    description: str
    other: str | None = None


HOOK_EVENTS = (
    HookEvent("contact_added", "A contact was added; some accounts send it for changes too."),
    HookEvent("contact_updated", "A contact was changed."),
    HookEvent("contact_unsubscribed", "A contact wants no more email.", "contact_unsubscribes"),
    HookEvent("contact_added_to_list", "A contact was put on a list."),
    HookEvent("contact_removed_from_list", "A contact was taken off a list."),
    HookEvent("contact_entered_segment", "A contact came into a smart segment."),
    HookEvent("contact_left_segment", "A contact left a smart segment."),
)
HOOK_PREFIX = "autopilot_"
"""The prefix of the names of events from hooks, which keeps other events out of their tables."""
HOOK_JOURNEY = "journey_webhook"  # the event of a contact that reached a journey's action Webhook
HOOK_LIBRARY = "autopilot-hook"  # `context.library.name` of messages from hooks
HOOK_CONTACT = "contact"  # the key in such a message that has the whole contact, as JSON text

# Deleting a person.

# The kinds of ids that a column holds, in every table or in one (`table.column`). An id with an @ is an email, except
# in a column of contact ids. `tagged`: the kind precedes the id, as in `email:...`.
PERSON_COLUMNS: dict[str, tuple[str, ...]] = {
    "user_id": ("email", "user_id"),
    "anonymous_id": ("email", "anonymous_id"),
    "previous_id": ("email", "user_id", "anonymous_id"),
    "context_traits_email": ("email",),
    "email": ("email",),
    "context_traits_contact_id": ("contact_id",),
    "contact_id": ("contact_id",),
    "users.id": ("email", "user_id"),
    "ortto_people.external_id": ("email", "user_id"),
    "_deliveries.email": ("email", "contact_id"),
    "_profiles.person": ("tagged",),
}
# For text that need not be JSON: the part of a key before `id`, and the kinds of ids that the key's value may be.
PERSON_KEYS: dict[str, tuple[str, ...]] = {
    "user": ("user_id",),
    "anonymous": ("anonymous_id",),
    "previous": ("user_id", "anonymous_id"),
    "contact": ("contact_id",),
    "external": ("user_id",),  # Ortto's word
}
SUPPRESSIONS = Table(
    "_suppressions",
    "The ids of deleted persons, as hashes: a load leaves out every message that has one of them.",
    (
        Column(
            "id",
            "text",
            "SHA-256 of salt, kind and id, one per line, with an email's case folded; HMAC-SHA256 if a key is set.",
        ),
        Column("salt", "text", "Random; `hmac-sha256:...` if a key is set, with a check value of the key."),
        Column("kind", "text", "email, user_id, anonymous_id or contact_id."),
        Column("person", "text", "The same for all ids of one person: one of their hashes."),
        Column("suppressed_at", "timestamp", "When the person was deleted."),
    ),
)

# Ortto, Autopilot's successor (docs/contract/ortto.md).


class OrttoActivity(NamedTuple):
    """An activity of Ortto: its id and name there, and the event that it becomes here (None: an event of its own name).

    It becomes that event only if it has the attribute `needs`. All of its events get the properties in `properties`.
    `pulled` tells whether it is requested by default.
    """

    id: str
    name: str
    event: str | None = None
    pulled: bool = False
    needs: str | None = None
    properties: tuple[tuple[str, str], ...] = ()


# An unsubscription without an email was made elsewhere: on a form, by an import, by the API.
ORTTO_ACTIVITIES = {
    activity.id: activity
    for activity in (
        OrttoActivity("act::s", "Sent email", pulled=True),
        OrttoActivity("act::r", "Received email", "Email Delivered", True),
        OrttoActivity("act::o", "Opened email", "Email Opened", True),
        OrttoActivity("act::c", "Clicked email", "Email Clicked", True),
        OrttoActivity("act::b", "Bounced email", "Email Bounced", True),
        OrttoActivity("act::s-ab", "Abuse reported", "Email Marked as Spam", True),
        OrttoActivity(
            "act::u-all", "Unsubscribed from email", "Email Unsubscribed", True, "idt::ei", (("scope", "all"),)
        ),
        OrttoActivity(
            "act::u-a", "Unsubscribed from email audience", "Email Unsubscribed", True, "idt::ei",
            (("scope", "audience"),),
        ),
        OrttoActivity("act::re", "Replied to email", "Email Replied", True),
        OrttoActivity("act::d", "Deferred email"),
        OrttoActivity("act::i", "Invalid email"),
        OrttoActivity("act::f", "Forwarded email"),
        OrttoActivity("act::v", "Viewed email online"),
        OrttoActivity("act::rt", "Reacted to email"),
        OrttoActivity("act::s-all", "Subscribed to email"),
        OrttoActivity("act::es", "Email suppressed"),
        OrttoActivity("act::eu", "Email unsuppressed"),
    )
}  # fmt: skip
ORTTO_TEST = "act::test_webhook"
"""The activity that a webhook's Test button sends."""
ORTTO_JOURNEY_EVENT = "ortto_journey_action"
"""The event of a webhook that is a step of a journey."""


class OrttoAttribute(NamedTuple):
    """An attribute of Ortto's activities: its id, its column here, its name there, and the column's type.

    `personal` ones are stored only if a setting requests it. A `decimal` comes as an integer, times 1,000. A place
    (`geo`) has columns for its name, `..._id`, `..._lat` and `..._lng`; an object has a column for each of its keys.
    """

    id: str
    column: str
    name: str
    type: Type = "text"
    personal: bool = False
    decimal: bool = False


ORTTO_ATTRIBUTES = {
    attribute.id: attribute
    for attribute in (
        OrttoAttribute("idt::c", "campaign_id", "Campaign ID"),
        OrttoAttribute("str::cn", "campaign_name", "Campaign name"),
        OrttoAttribute("str::ct", "campaign_type", "Campaign type"),
        OrttoAttribute("str::cvt", "campaign_variant_type", "Campaign variant type"),
        OrttoAttribute("idt::ei", "email_id", "Email ID"),
        OrttoAttribute("str::asn", "email_name", "Email name"),
        OrttoAttribute("str::s", "email_subject", "Subject"),
        OrttoAttribute("bol::t", "transactional", "Transactional", "bool"),
        OrttoAttribute("int::li", "link_id", "Link index"),
        OrttoAttribute("str::c", "link_url", "URL clicked"),
        OrttoAttribute("str::rc", "link_raw_url", "Raw url clicked"),
        OrttoAttribute("str::burl", "link_base_url", "Base URL"),
        OrttoAttribute("str::us", "utm_source", "UTM campaign source"),
        OrttoAttribute("str::um", "utm_medium", "UTM campaign medium"),
        OrttoAttribute("str::un", "utm_campaign", "UTM campaign name"),
        OrttoAttribute("str::uc", "utm_content", "UTM campaign content"),
        OrttoAttribute("str::bt", "bounce_type", "Bounce type"),
        OrttoAttribute("str::bc", "bounce_category", "Category"),
        OrttoAttribute("str::br", "bounce_reason", "Reason"),
        OrttoAttribute("str::be", "bounced_email", "Bounced email address", personal=True),
        OrttoAttribute("bol::m", "machine", "Possible machine open", "bool"),
        OrttoAttribute("idt::a", "audience_id", "Audience ID"),
        OrttoAttribute("str::an", "audience_name", "Audience name"),
        OrttoAttribute("idt::jri", "run_id", "Run ID"),
        OrttoAttribute("str::jsi", "shape_id", "Shape ID"),
        OrttoAttribute("idt::mi", "message_id", "Message ID"),
        OrttoAttribute("idt::oi", "object_id", "Object ID"),
        OrttoAttribute("idt::ds", "data_source_id", "Data Source ID"),
        OrttoAttribute("str::is", "source", "Source"),
        OrttoAttribute("str::rn", "unsubscribe_reason", "Reason"),
        OrttoAttribute("str::rno", "unsubscribe_reason_other", "Reason (other)"),
        OrttoAttribute("str::u-ctx", "unsubscribe_context", "Unsubscribe Context"),
        OrttoAttribute("str::s-ctx", "subscribe_context", "Subscribe Context"),
        OrttoAttribute("str::su", "subscribed_via_url", "Subscribed via URL"),
        OrttoAttribute("str::mrn", "message_data_missing_reason", "Message data missing reason"),
        OrttoAttribute("str::es", "email_status", "Email status"),
        OrttoAttribute("str::rs", "reason_source", "Reason Source"),
        OrttoAttribute("int::rt", "reason_type", "Reason Type", "bigint"),
        OrttoAttribute("str::rt", "reaction_type", "Reaction type"),
        OrttoAttribute("str::rr", "reaction_reason", "Reaction reason"),
        OrttoAttribute("str::fn", "from_name", "From name"),
        OrttoAttribute("str::fre", "from_email", "From email"),
        OrttoAttribute("str::fe", "forwarded_email", "Forwarded email", personal=True),
        OrttoAttribute("txt::er", "reply_text", "Reply", personal=True),
        OrttoAttribute("str::erf", "replied_from", "Replied from", personal=True),
        OrttoAttribute("str::ert", "replied_to", "Replied to", personal=True),
        OrttoAttribute("str::b", "browser", "Browser"),
        OrttoAttribute("str::bv", "browser_version", "Browser version"),
        OrttoAttribute("str::p", "platform", "Platform"),
        OrttoAttribute("str::pv", "platform_version", "Platform version"),
        OrttoAttribute("str::d", "device", "Device"),
        OrttoAttribute("obj::i", "system_info", "System info object"),
        OrttoAttribute("obj::r", "screen_info", "Screen info object"),
        OrttoAttribute("str::sr", "screen_resolution", "Screen resolution"),
        OrttoAttribute("int::sw", "screen_width", "Screen width", "bigint"),
        OrttoAttribute("int::sh", "screen_height", "Screen height", "bigint"),
        OrttoAttribute("int::sr", "screen_pixel_ratio", "Screen pixel ratio", "double", decimal=True),
        OrttoAttribute("bol::ts", "touch_screen", "Touch screen", "bool"),
        OrttoAttribute("geo::country", "country", "Country"),
        OrttoAttribute("geo::region", "region", "Region"),
        OrttoAttribute("geo::city", "city", "City"),
        OrttoAttribute("geo::position", "position", "Position"),
        OrttoAttribute("str::t", "timezone", "Timezone"),
    )
}
# Attributes that have another meaning in one activity than in all others.
ORTTO_ATTRIBUTES_OF: dict[str, dict[str, OrttoAttribute]] = {
    "act::s-ab": {
        "str::rn": OrttoAttribute("str::rn", "spam_reason", "Reason"),
        "str::rno": OrttoAttribute("str::rno", "spam_reason_other", "Reason (other)"),
    },
    "act::c": {"bol::m": OrttoAttribute("bol::m", "machine", "Possible machine click", "bool")},
    "act::rt": {"str::rn": OrttoAttribute("str::rn", "reaction_name", "Reaction name")},
}
# The types of Ortto's fields, by the first part of their ids. A `geo` is the name of a place, a `dtz` a date.
ORTTO_TYPES: dict[str, Type] = {
    "str": "text",
    "txt": "text",
    "idt": "text",
    "int": "bigint",
    "bol": "bool",
    "tme": "timestamp",
    "phn": "text",
    "geo": "text",
    "dtz": "text",
    "u4s": "text",
}
ORTTO_GEO_DIGITS = 6
"""How many decimal places a latitude or longitude has; it comes as an integer."""
ORTTO_DECIMAL_DIGITS = 3
"""How many decimal places a `decimal` attribute has; it comes as an integer, too."""

# Ortto's fields for Autopilot's standard fields; for all other standard fields an account of Ortto has custom fields.
ORTTO_STANDARD_FIELDS = {
    "FirstName": "str::first",
    "LastName": "str::last",
    "Phone": "phn::phone",
    "MailingCity": "geo::city",
    "MailingState": "geo::region",
    "MailingPostalCode": "str::postal",
    "MailingCountry": "geo::country",
    "unsubscribed": "bol::p",  # the permission, which is the opposite
}
# Their names in Ortto.
ORTTO_STANDARD_NAMES = {
    "FirstName": "First name",
    "LastName": "Last name",
    "Phone": "Phone number",
    "MailingCity": "City",
    "MailingState": "Region",
    "MailingPostalCode": "Postal code",
    "MailingCountry": "Country",
    "unsubscribed": "Email permission",
}
# Other fields of people that every account of Ortto has and that may be written, with their names.
ORTTO_SYSTEM_FIELDS = {
    "dtz::b": "Birthday",
    "str::language": "Language",
    "bol::gdpr": "GDPR",
    "bol::sp": "SMS permission",
    "str::u-ctx": "Email unsubscribe context",
    "str::s-ctx": "Email subscribe context",
}

TABLES = {
    table.name: table
    for table in (
        *(*MESSAGE_TABLES, *EVENT_TABLES, USERS, ACCOUNTS, *BOOKS, PROFILES, *ACCOUNT, *ORTTO_ACCOUNT),
        *(SUPPRESSIONS, *DELIVERY_LOGS, FORWARDS),
    )
}
