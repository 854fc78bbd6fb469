"""The filters of `/person/get`: those whose form is documented, and some others in their likely forms."""

from collections.abc import Callable, Mapping
from typing import Any

from .made_up import Record


class Refused(Exception):
    """The account refuses a filter. The message is that of the response."""


Test = Callable[[str, Record], bool]


def test_of(body: Any, *, times: bool, members: Callable[[str], Callable[[str], bool]]) -> Test:
    """Returns a function that tells whether a person, given by id and fields, matches. Raises Refused.

    Without `times`, filters on times and activities are refused, as if they had a different form in reality.
    """
    if not isinstance(body, Mapping) or len(body) != 1:
        raise Refused(f"Failed to decode filter {body}: Invalid value")
    (name, argument), *_ = body.items()

    def inner(part: Any) -> Test:
        return test_of(part, times=times, members=members)

    if name in ("$and", "$or") and isinstance(argument, list):
        tests = [inner(part) for part in argument]
        together = all if name == "$and" else any
        return lambda id_, fields: together(test(id_, fields) for test in tests)
    if name == "$is_member_of" and isinstance(argument, Mapping):
        is_member = members(next((str(value) for value in argument.values() if len(str(value)) == 24), ""))
        return lambda id_, _: is_member(id_)
    make = OPERATIONS.get(name)
    if make is None or not isinstance(argument, Mapping) or (name.startswith(("$tme", "$act")) and not times):
        raise Refused(f"Failed to decode filter: Unknown operation {name}: {argument} (Invalid value)")
    field, value = argument.get("field_id"), argument.get("value")
    if not isinstance(field, str) or (name not in ("$has_any_value", "$has_no_value") and value is None):
        raise Refused(f"Failed to decode filter {name} {argument}: Invalid value")
    operation: Callable[[Any, Any], bool] = make
    return lambda _, fields: operation(fields.get(field), value)


OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "$has_any_value": lambda got, _: got is not None,
    "$has_no_value": lambda got, _: got is None,
    "$str::is": lambda got, value: got == value,
    "$str::contains": lambda got, value: got is not None and str(value) in str(got),
    "$bol::is": lambda got, value: bool(got) == value,
    "$tme::absolute_after": lambda got, value: got is not None and got > str(value),
    "$tme::absolute_before": lambda got, value: got is not None and got < str(value),
}
