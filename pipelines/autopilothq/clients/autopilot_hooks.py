"""Lists, adds and removes the REST hooks of an Autopilot account (docs/contract/autopilot-hooks.md)."""

from typing import Any

from ..errors import UnexpectedResponse
from ..segment.json_text import JsonObject
from .autopilot import Autopilot
from .decode import as_text, describe
from .http import ApiClient


class AutopilotHooks(ApiClient):
    """The hooks of an account. Methods raise ApiErrors.

    Example: `with AutopilotHooks(AutopilotSettings(api_key=key)) as account: account.hooks()`.
    """

    KEY_HEADER = Autopilot.KEY_HEADER

    def hooks(self) -> list[Any]:
        """Returns `{"hook_id","event","target_url","created_at"}` of each hook."""
        answer = self._http.request("GET", ["hooks"])
        found = answer.value("hooks") if isinstance(answer, JsonObject) else None
        if not isinstance(found, list) or isinstance(found, JsonObject):
            text = f"GET /hooks: expected an object with a list of hooks, got {describe(answer)}"
            raise UnexpectedResponse(text, method="GET", path="/hooks", status=200)
        return found

    def add_hook(self, event: str, url: str) -> str:
        """Registers a hook that posts an event to a URL. Returns its id, or an empty text if the API returns none.

        Raises RequestRejected: 409 if there is such a hook already, 400 for an event that the account does not know.
        """
        answer = self._http.request("POST", ["hook"], body={"event": event, "target_url": url})
        ids = [answer.value(key) for key in ("id", "hook_id")] if isinstance(answer, JsonObject) else []
        return next(filter(None, map(as_text, ids)), "")

    def remove_hook(self, hook_id: str) -> None:
        """Removes a hook. Raises NotFound if there is none with that id."""
        self._http.request("DELETE", ["hook", hook_id], wants_json=False)
