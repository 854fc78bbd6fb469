"""DATA: the events, tables, columns, types, limits and reasons of the warehouse (docs/contract/warehouse.md).

Everything else is derived from this file: Arrow schemas, dlt's column hints, the `schema` command, the documentation's
tables. A new property, event, table or limit is a line here.
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
    """A table of the dataset. `key` are the columns that make a row unique; it is empty where none do."""

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ("id",)


KEYS = (
    Column("id", "text", "The message's id; a digest of its line where the message has none.", ("messageId",)),
    Column("received_at", "timestamp", "When Segment received the message.", ("receivedAt",)),
    Column("uuid_ts", "timestamp", "When the load that stored the row processed it."),
)
IDENTITY = (
    Column(
        "anonymous_id",
        "text",
        "The message's anonymousId; the contact's email where the message has neither a user id nor an anonymous id.",
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
    """An event of Autopilot: its name as sent, what happened, and the columns that it has beyond the others'."""

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

TRACKS = Table("tracks", "Every event, with the columns that all events have.", COMMON + EVENT)
EVENT_TABLES = tuple(
    Table(event.table, f"{event.name}: {event.description}", COMMON + EVENT + PROPERTIES + event.columns)
    for event in EVENTS
)
EVENT_DESCRIPTION = "An event that a journey's Send Event action sent; its properties are columns."

# The other types of messages: type, table, and the object whose fields become columns.
IDENTIFIES = Table("identifies", "Every identify: the traits of a contact as they were sent.", COMMON)
GROUPS = Table(
    "groups",
    "Every group: a person's company or account.",
    (*COMMON, Column("group_id", "text", "The group's id.", ("groupId",))),
)
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
    (
        "page",
        Table(
            "pages",
            "Every page view.",
            (
                *COMMON,
                Column("name", "text", "The page's name.", ("name",)),
                Column("category", "text", "The page's category.", ("category",)),
            ),
        ),
        "properties",
    ),
    (
        "screen",
        Table(
            "screens",
            "Every screen view.",
            (
                *COMMON,
                Column("name", "text", "The screen's name.", ("name",)),
                Column("category", "text", "The screen's category.", ("category",)),
            ),
        ),
        "properties",
    ),
    ("group", GROUPS, "traits"),
)
USERS = Table(
    "users",
    "One row per user id: the last value of each trait, by the time of its receipt.",
    (
        Column("id", "text", "The user id."),
        Column("received_at", "timestamp", "When Segment received the user's last identify."),
        Column("uuid_ts", "timestamp", "When the load that last changed the row processed it."),
        *CONTEXT,
    ),
)
# Only what the messages say of the group; who sent them, and from where, is in `groups`.
ACCOUNTS = Table(
    "accounts",
    "One row per group: the last value of each trait, by the time of its receipt.",
    (
        Column("id", "text", "The group's id."),
        Column("received_at", "timestamp", "When Segment received the last message about the group."),
        Column("uuid_ts", "timestamp", "When the load that last changed the row processed it."),
    ),
)


class Latest(NamedTuple):
    """A table with the last value of each trait of the users or groups that messages of a type are about.

    `kind` is that type of message, `messages` its table, and `key` the column of it that holds the user's or group's
    id. Columns in `left_out`, and those that begin with `left_out_prefix`, are no traits.
    """

    table: Table
    kind: str
    messages: Table
    key: str
    left_out: frozenset[str]
    left_out_prefix: str | None = None


_CONTEXT_NAMES = frozenset(column.name for column in CONTEXT)
_OWN_NAMES = frozenset(column.name for column in COMMON) - _CONTEXT_NAMES
LATEST = (
    Latest(USERS, "identify", IDENTIFIES, "user_id", _OWN_NAMES),
    Latest(ACCOUNTS, "group", GROUPS, "group_id", _OWN_NAMES | {"group_id"}, "context_"),
)

REJECTS = Table(
    "_rejects",
    "Lines that are no message that the warehouse can hold, whole, with the reason.",
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
        Column("column_name", "text", "The column; the key as sent where there is no column for it."),
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
        Column("duplicates", "bigint", "Lines whose message was stored already, or stands in the same load earlier."),
        Column("rejected", "bigint", "Lines that were rejected."),
        Column("first_received_at", "timestamp", "The earliest receipt of a message in it."),
        Column("last_received_at", "timestamp", "The latest receipt of a message in it."),
        Column("load_id", "text", "dlt's load; the file counts as loaded once `_dlt_loads` has that load."),
        Column("loaded_at", "timestamp", "When that load processed it."),
        Column("skipped", "bigint", "Lines whose messages were not asked for; they are loaded when they are."),
        Column("tables", "text", "What of it is loaded where that is not all, as JSON; null: all tables."),
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
    "Whose events were asked for from Segment's Profile API, and up to when they are loaded.",
    (
        Column("space", "text", "The space of Segment Unify."),
        Column("person", "text", "The person's id there: email:..., user_id:... or anonymous_id:..."),
        Column("scope", "text", "A digest of which events were asked for, and of which source."),
        Column(
            "watermark", "timestamp", "Up to when the person's events are loaded; null where no answer could be read."
        ),
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
    "Every contact of the account, as the last scan saw it; custom fields are columns `custom_...`.",
    (
        Column("contact_id", "text", "The contact's id in Autopilot."),
        *SCANNED,
        Column("deleted_at", "timestamp", "When the first complete scan began that did not find the contact any more."),
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
# Tables of the account's present state: a complete scan replaces all their rows.
CURRENT = (LISTS, LISTS_CONTACTS, SEGMENTS, SEGMENTS_CONTACTS, CUSTOM_FIELDS, TRIGGERS)
ACCOUNT = (CONTACTS, *CURRENT)

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
# Tables that exist after any load, even without rows; the others come with their first row.
ALWAYS = (TRACKS, *EVENT_TABLES, *BOOKS)

# Why a line is rejected: the error code of Segment's API where it has one, and an explanation.
REJECT_REASONS = {
    "not_json": "not JSON",
    "not_an_object": "JSON, but not an object",
    "truncated": "the file breaks off or is damaged here",
    "line_too_long": "longer than 1 MiB",
    "unknown_type": "`type` is none of track, identify, alias, page, screen, group",
    "no_user_anon_id": "no `userId`, no `anonymousId` and no email",
    "event_not_defined": "a track without `event`",
    "event_not_string": "`event` is not text",
    "properties_not_object": "`properties` is not an object",
    "traits_not_object": "`traits` is not an object",
    "context_not_object": "`context` is not an object",
    "bad_answer": "an API's answer about a person that cannot be read; that person is asked for again next time",
    "no_id": "an API's object without the id that its row is known by",
    "suppressed": "of a person who was forgotten",
    "unreadable": "it cannot be read or stored",
}
# Why a value is discarded.
DISCARD_REASONS = {
    "does_not_fit": "it cannot become its column's type without loss",
    "not_a_time": "it is no time that can be read",
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
MAX_KEYS = 10_000  # of one message
# Nested objects and arrays, of a line and of an API's answer. Python's own limit differs from version to version: the
# least is 1,000, less what calls the reader.
MAX_DEPTH = 250
MAX_ANSWER_DEPTH = 500
MAX_EVENT_TABLES = 500  # of a dataset, in addition to Autopilot's seven; a setting
COLUMN_RESERVE = 100  # columns that a table keeps free for the catalogue, for people, and for those that were dropped


class Limits(NamedTuple):
    """The limits of a table in a destination: columns, bytes of a row, and names that no column can have.

    `row_bytes` is None where a row has no such limit. A column whose name is in `reserved` or begins with one of
    `reserved_prefixes` gets a `_` in front.
    """

    columns: int
    row_bytes: int | None = None
    reserved: frozenset[str] = frozenset()
    reserved_prefixes: tuple[str, ...] = ()


_POSTGRES_SYSTEM = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
# By dlt's name of the destination, from its documentation.
LIMITS: dict[str, Limits] = {
    "postgres": Limits(1_600, 8_160, _POSTGRES_SYSTEM),
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


class Native(NamedTuple):
    """How Segment's loader makes tables in a destination, where dlt would differ (docs/contract/warehouse.md#types).

    `types` maps the contract's types to the destination's. If `keyed`, a table's key is its PRIMARY KEY. Each column of
    `indexed` has an index. `zoned` is whether times have a time zone. `copies` maps extra columns, of tables of
    messages and of those derived from them, to the columns that they repeat. `view` is the name of a view over each
    table of messages, with `{}` for the table's name. `layout` are the columns by which `tracks`, the largest table, is
    stored, with dlt's hint for each.
    """

    types: Mapping[Type, str] = MappingProxyType({})
    keyed: bool = False
    indexed: tuple[str, ...] = ()
    zoned: bool = True
    copies: Mapping[str, str] = MappingProxyType({})
    view: str | None = None
    layout: Mapping[str, Layout] = MappingProxyType({})


# By dlt's name of the destination. SQL that was written for Segment's tables runs on these: PostgreSQL's round() takes
# no double precision, Redshift's DATEDIFF no zones, and Segment's page on BigQuery tells people to query the views.
NATIVE: dict[str, Native] = {
    "postgres": Native({"double": "numeric"}, keyed=True, indexed=("received_at",)),
    "redshift": Native(
        {"timestamp": "timestamp without time zone"}, zoned=False, layout=MappingProxyType({"received_at": "sort"})
    ),
    "bigquery": Native(
        copies={"loaded_at": "uuid_ts"},
        view="{}_view",
        layout=MappingProxyType({"received_at": "partition", "event": "cluster"}),
    ),
    "snowflake": Native(layout=MappingProxyType({"received_at": "cluster", "event": "cluster"})),
    "databricks": Native(layout=MappingProxyType({"received_at": "cluster", "event": "cluster"})),
}
OTHER_NATIVE = Native()


def event_table(name: str) -> Table:
    """Returns the table of that name if it is one of the seven events', else the initial table of any other event."""
    known = TABLES.get(name)
    return known if known in EVENT_TABLES else Table(name, EVENT_DESCRIPTION, COMMON + EVENT)


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
    "Title": ("title",),
    "Industry": ("industry",),
    "Phone": ("phone",),
    "MobilePhone": ("mobilephone",),
    "Fax": ("fax",),
    "Website": ("website",),
    "Twitter": ("twitter",),
    "LinkedIn": ("linkedin",),
    "Status": ("status",),
    "LeadSource": ("leadsource",),
    "MailingStreet": ("mailingstreet", "address.street", "address"),
    "MailingCity": ("mailingcity", "address.city"),
    "MailingState": ("mailingstate", "address.state"),
    "MailingPostalCode": ("mailingpostalcode", "address.postalcode"),
    "MailingCountry": ("mailingcountry", "address.country"),
    "unsubscribed": ("unsubscribed",),
    "_NewEmail": ("newemail",),
}
# Objects and texts that set several fields: null clears them all.
WHOLES: dict[str, tuple[str, ...]] = {
    "name": ("FirstName", "LastName"),
    "address": ("MailingStreet", "MailingCity", "MailingState", "MailingPostalCode", "MailingCountry"),
}
CUSTOM_TYPES = ("string", "integer", "float", "boolean", "date")

# The delivery status of a message.
STATUSES = {
    "delivered": "Autopilot took it.",
    "refused": "Autopilot, or a rule before it, said no; it is tried again when it is sent again.",
    "failed": "Autopilot could not be reached or was out of order; it is tried again when it is sent again.",
    "unknown": "It was sent, and whether it was carried out is not known; it is not sent again.",
}
DELIVERIES = Table(
    "_deliveries",
    "What became of every message to Autopilot: a row for each run, and for each trigger of an event.",
    (
        Column("message_id", "text", "The message's id; of a query's row a digest of the person and the traits."),
        Column("kind", "text", "identify or track."),
        Column("event", "text", "The event's name, of a track."),
        Column("audience", "text", "The audience's name in snake_case, where it is a member that came or left."),
        Column("user_id", "text", "The id of the contact in your own systems."),
        Column("email", "text", "The contact's email."),
        Column("trigger_id", "text", "The trigger, of a track."),
        Column("endpoint", "text", "The request: method and path; null where none was made."),
        Column("content", "text", "A digest of what was sent of a query's row; true or false of an audience."),
        Column("status", "text", f"{', '.join(STATUSES)}."),
        Column("http_status", "bigint", "The status of the last answer."),
        Column("message", "text", "Autopilot's message, or why nothing was sent."),
        Column("remarks", "text", "Traits that were left out or that the account has no field for, and why, as JSON."),
        Column("attempts", "bigint", "How often the request was tried."),
        Column("sent_at", "timestamp", "When it was sent, or decided not to be."),
        Column("run", "text", "The run that did it."),
    ),
    key=(),  # the trigger is null where a row is about a contact alone
)

# Deleting a person.

# The kinds of ids that a column holds, in any table, or in one (`table.column`). An id with an @ is an email in any
# column but a contact's id. `tagged`: the kind precedes the id, as in `email:...`.
PERSON_COLUMNS: dict[str, tuple[str, ...]] = {
    "user_id": ("email", "user_id"),
    "anonymous_id": ("email", "anonymous_id"),
    "previous_id": ("email", "user_id", "anonymous_id"),
    "context_traits_email": ("email",),
    "email": ("email",),
    "context_traits_contact_id": ("contact_id",),
    "contact_id": ("contact_id",),
    "users.id": ("email", "user_id"),
    "_profiles.person": ("tagged",),
}
# In text that need not be JSON: the part of a key before `id`, and the kinds of ids that it holds.
PERSON_KEYS: dict[str, tuple[str, ...]] = {
    "user": ("user_id",),
    "anonymous": ("anonymous_id",),
    "previous": ("user_id", "anonymous_id"),
    "contact": ("contact_id",),
}
SUPPRESSIONS = Table(
    "_suppressions",
    "The ids of forgotten persons, as hashes: a load leaves out every message that has one of them.",
    (
        Column(
            "id", "text", "SHA-256 of salt, kind and id, a line each, an email's case folded; HMAC where a key is set."
        ),
        Column("salt", "text", "Random; `hmac-sha256:...` where a key is set, with a check value of the key."),
        Column("kind", "text", "email, user_id, anonymous_id or contact_id."),
        Column("person", "text", "The same for all ids of one person: one of their hashes."),
        Column("suppressed_at", "timestamp", "When the person was forgotten."),
    ),
)

TABLES = {
    table.name: table
    for table in (*MESSAGE_TABLES, *EVENT_TABLES, USERS, ACCOUNTS, *BOOKS, PROFILES, *ACCOUNT, SUPPRESSIONS, DELIVERIES)
}
