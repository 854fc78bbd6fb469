"""A client of Ortto's REST API, version 1 (docs/contract/ortto-api.md), which reads and writes an account."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..segment.json_text import JsonObject
from .decode import as_text, value_at
from .ortto_answers import (
    ActivityPage,
    PeoplePage,
    Written,
    activity_page,
    array,
    campaign_page,
    limit_empty_pages,
    people_page,
    read_written,
    unexpected,
)
from .ortto_requests import OrttoRequests, OrttoSettings

__all__ = ["ActivityPage", "Ortto", "OrttoSettings", "PeoplePage", "Written"]

PEOPLE_PER_PAGE = 500
ACTIVITIES_PER_PAGE = 40
CAMPAIGNS_PER_PAGE = 50
AUDIENCES_PER_PAGE = 40
MOST_FIELDS = 150  # fields in one request for people
MOST_WRITTEN = 100  # people or activities that one request writes
KILL_POINT_PEOPLE_WRITTEN = f"{__name__}:Ortto.merge_people"  # for tests/faults
KILL_POINT_ACTIVITIES_SENT = f"{__name__}:Ortto.create_activities"  # for tests/faults


class Ortto(OrttoRequests):
    """A client of one account. It is thread-safe; all instances with the same key share one rate limit (`pace.Pace`).

    Values are as `decode.decode_json` returns them. Methods raise ApiErrors.

    Example: `with Ortto(OrttoSettings(api_key=key)) as account: pages = list(account.people(["str::email"]))`.
    """

    # ---- reading -------------------------------------------------------------------------------------------------

    @limit_empty_pages("person/get", lambda page: page.contacts)
    def people(
        self,
        fields: Sequence[str],
        where: Mapping[str, Any] | None = None,
        *,
        audience: str | None = None,
        offset: int = 0,
        cursor_id: str | None = None,
        limit: int = PEOPLE_PER_PAGE,
    ) -> Iterator[PeoplePage]:
        """Yields all people, or those that match the filter `where`, or the members of an audience, page by page.

        `offset` and `cursor_id` are where the first page begins, as the page before it returned them. Raises
        RequestRejected (400) if the account does not accept the fields or the filter, or no longer knows the cursor.
        """
        if len(fields) > MOST_FIELDS:
            raise ValueError(f"At most {MOST_FIELDS} fields go into one request, got {len(fields)}")
        while True:
            body: dict[str, Any] = {"limit": limit, "offset": offset, "fields": list(fields)}
            body |= {"cursor_id": cursor_id} if cursor_id else {}
            body |= {"filter": where} if where else {}
            body |= {"audience_id": audience} if audience else {}
            page = people_page("person/get", self.object("person/get", body), offset)
            yield page
            if not page.has_more:
                return
            offset, cursor_id = page.next_offset, page.cursor_id

    def people_by_ids(self, ids: Sequence[str], fields: Sequence[str]) -> dict[str, Any]:
        """Returns people by id; unknown ids are left out."""
        answer = self.object("person/get-by-ids", {"contact_ids": list(ids), "fields": list(fields)})
        contacts = answer.value("contacts")
        if contacts is not None and not isinstance(contacts, JsonObject):
            raise unexpected("person/get-by-ids", "an object of contacts", contacts)
        return dict(contacts or [])

    @limit_empty_pages("person/get/activities", lambda page: page.activities)
    def activities(self, person_id: str, kinds: Sequence[str]) -> Iterator[ActivityPage]:
        """Yields a person's activities of `kinds` such as `act::o` (if empty, of all kinds), page by page.

        Raises NotFound or RequestRejected for an unknown person.
        """
        path, offset, has_more = "person/get/activities", 0, True
        while has_more:
            body = {"person_id": person_id, "activities": list(kinds), "limit": ACTIVITIES_PER_PAGE, "offset": offset}
            answer = self.object(path, body | {"timeframe": {"type": "all"}}, limit=self.activities_limit)
            page = activity_page(path, answer, offset)
            offset, has_more = page.next_offset, page.has_more
            yield page

    def instance_schema(self) -> JsonObject:
        """Returns the names of all ids: `{"namespaces":{NAME:{"fields":{ID:{"name","attributes",…}}}}}`."""
        return self.object("instance-schema/get", {"namespaces": []})

    def custom_fields(self) -> list[JsonObject]:
        """Returns `{"id","name","display_type",…}` of each custom field of people. The cheapest way to check a key."""
        path = "person/custom-field/get"
        found = [entry for entry in array(path, self.object(path, {}), "fields") if isinstance(entry, JsonObject)]
        fields = [entry.value("field") or entry for entry in found]
        return [field for field in fields if isinstance(field, JsonObject)]

    @limit_empty_pages("campaign/get-all", lambda page: page)
    def campaigns(self) -> Iterator[list[Any]]:
        """Yields all campaigns, page by page: `{"id","name","type","state","delivered","opens","clicks",…}` each."""
        path, offset, has_more = "campaign/get-all", 0, True
        while has_more:
            answer = self.object(path, {"limit": CAMPAIGNS_PER_PAGE, "offset": offset})
            page, offset, has_more = campaign_page(path, answer, offset)
            yield page

    def campaign_report(self, campaign_id: str) -> JsonObject:
        """Returns the numbers of a campaign; `reports` in it is null for a campaign that was never sent.

        The API accepts 60 such requests in ten minutes.
        """
        return self.object("campaign/reports/get", {"campaign_id": campaign_id}, limit=self.reports_limit)

    def audiences(self) -> Iterator[list[Any]]:
        """Yields all audiences, page by page, until a page has no new one."""
        seen: set[str | None] = set()
        offset = 0
        while True:
            answer = self.post("audiences/get", {"limit": AUDIENCES_PER_PAGE, "offset": offset})
            page = array("audiences/get", answer, "audiences")
            ids = {as_text(value_at(audience, "id")) for audience in page}
            if ids <= seen:
                return
            yield page
            seen |= ids
            offset += len(page)

    def tags(self) -> list[Any]:
        """Returns `{"id","name","count",…}` of each tag."""
        return array("tags/get", self.post("tags/get", {}), "tags")

    # ---- writing -------------------------------------------------------------------------------------------------

    def merge_people(
        self,
        people: Sequence[Mapping[str, Any]],
        merge_by: Sequence[str] = ("str::email", "str::ei"),
        *,
        idempotent: bool = True,
    ) -> list[Written]:
        """Writes 1 to 100 people, each `{"fields","tags","unset_tags"}`, and merges them with existing people.

        Returns the outcome of each, in the order of `people`, once all are written. A person is found by any of the
        fields in `merge_by`, otherwise created. Raises RequestRejected (400) if all are refused, and ContactLimit.
        """
        _check_number(people, "people")
        body = {"people": list(people), "merge_by": list(merge_by), "merge_strategy": 2, "find_strategy": 0}
        answer = self.object("person/merge", body | {"async": False}, idempotent=idempotent)
        return read_written("person/merge", answer, "people", len(people))

    def create_activities(self, activities: Sequence[Mapping[str, Any]]) -> list[Written]:
        """Creates 1 to 100 activities, each `{"activity_id","attributes","fields","merge_by",…}`.

        Returns the outcome of each, in their order. The request is not repeated once it may have been carried out:
        OutcomeUnknown means that the activities may have been created.
        """
        _check_number(activities, "activities")
        answer = self.object("activities/create", {"activities": list(activities), "async": False}, idempotent=False)
        return read_written("activities/create", answer, "activities", len(activities))


def _check_number(written: Sequence[Mapping[str, Any]], what: str) -> None:
    if not 1 <= len(written) <= MOST_WRITTEN:
        raise ValueError(f"1 to {MOST_WRITTEN} {what} go into one request, got {len(written)}")
