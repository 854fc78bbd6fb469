"""Reads an answer: its body within limits, and its JSON or the error for its status."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

import httpx

from .. import masking
from ..catalog import MAX_ANSWER_DEPTH
from ..errors import ContactLimit, NotAuthorized, NotFound, RequestRejected, Unavailable, UnexpectedResponse
from ..segment.json_text import JsonObject, to_json
from .auth import where_to_set
from .call import Call
from .decode import MAX_VALUES, JsonValue, NotJson, TooDeep, TooManyValues, Truncated, as_text, decode_json, value_at
from .inflate import ACCEPTED, TooBig, Undecodable, UnknownEncoding, inflated
from .retry import MAX_RETRY_AFTER, TransientFailure, retry_after

MAX_BODY = 64 * 1024 * 1024  # bytes
_MAX_TIMEOUTS = 10  # time-outs that a whole answer may take, however steadily it trickles in
_ERROR_BODY = 64 * 1024  # bytes of an error's body that are read
_KEPT = 1024 * 1024  # bytes of an unreadable answer that the error keeps
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_MOST_TEXT = 300  # characters of the server's own text in a message


# ---- the body ------------------------------------------------------------------------------------------------------


def read_body(call: Call, response: httpx.Response) -> bytes:
    """Returns the decoded body.

    It is decoded piece by piece, because httpx would inflate a small body to gigabytes before its size is known. Raises
    UnexpectedResponse if a body whose JSON is wanted is too big or has an unknown encoding, and httpx.HTTPError if a
    body breaks off.
    """
    reads_json = response.is_success and call.wants_json
    most = MAX_BODY if reads_json else _ERROR_BODY
    chunks: list[bytes] = []
    try:
        chunks.extend(inflated(_raw(call, response), response.headers.get("Content-Encoding", ""), most))
    except TooBig:
        if reads_json:
            chunks.clear()  # the error's traceback would keep them in memory
            text = f"the answer is bigger than {MAX_BODY // 1024**2} MB"
            raise call.error(UnexpectedResponse, text, response.status_code) from None
    except Undecodable as error:
        raise httpx.DecodingError(str(error), request=response.request) from None
    except UnknownEncoding as error:
        if reads_json:
            text = f"expected an answer in one of the encodings {ACCEPTED}, got {error.args[0]!r}"
            raise call.error(UnexpectedResponse, text, response.status_code) from None
    return b"".join(chunks)


def _raw(call: Call, response: httpx.Response) -> Iterator[bytes]:
    """Yields the body's bytes as they come. Raises httpx.ReadTimeout if the whole body takes too long."""
    end = time.monotonic() + _MAX_TIMEOUTS * call.settings.timeout
    for chunk in response.iter_raw():
        yield chunk
        if time.monotonic() > end:
            raise httpx.ReadTimeout("", request=response.request)


# ---- the status ----------------------------------------------------------------------------------------------------


def read_answer(call: Call, response: httpx.Response, content: bytes) -> JsonValue:
    """Returns the JSON of a success, or None if the call wants none.

    Raises the ApiError for the status, or TransientFailure if another attempt may succeed.
    """
    status = response.status_code
    if response.is_success:
        return _json(call, response, content) if call.wants_json else None
    settings = call.settings
    message = "" if response.is_redirect else _server_message(response, content)
    what = f"{status} {_phrase(status)}".rstrip() + (f": {message}" if message else "")
    if status < 400:
        base = str(httpx.URL(settings.base_url)).rstrip("/")
        text = (
            f"{what} to {_redirect_target(response)}; redirects are not followed, so that the key goes nowhere else."
            f" Check {settings.name_of('base_url')} ({base})"
        )
        raise call.error(UnexpectedResponse, text, status)
    if status == 401 or (status == 403 and not (settings.REFUSES_BY_403 and call.method != "GET")):
        also = f" and {settings.name_of(settings.ALSO_BY_403)}" if status == 403 and settings.ALSO_BY_403 else ""
        text = f"{what.rstrip('.')}. Check {settings.setting} ({where_to_set(settings.setting)}){also}"
        raise call.error(NotAuthorized, text, status, message)
    if status == settings.ACCOUNT_FULL:
        text = f"{what.rstrip('.')}. The account holds as many contacts as its plan allows: archive some, or extend it"
        raise call.error(ContactLimit, text, status, message)
    if status in (408, 429) or status >= 500:
        wait = retry_after(response) or (_wait_of(content) if status == 429 else None)
        raise _transient(call, TransientFailure(what, status, message, wait))
    raise call.error(NotFound if status == 404 else RequestRejected, what, status, message)


def _transient(call: Call, failure: TransientFailure) -> Exception:
    """Returns the exception for a server's failure. Only a 429 means that the request was not carried out."""
    if failure.status != 429 and not call.idempotent:
        return call.outcome_unknown(failure)
    if failure.wait is not None and failure.wait > MAX_RETRY_AFTER:
        text = f"{failure.reason.rstrip('.')}. The server asks to wait {failure.wait:.0f} s: run it again then"
        unavailable = call.error(Unavailable, text, failure.status, failure.server_message)
        unavailable.wait = failure.wait
        return unavailable
    return failure


def _wait_of(content: bytes) -> float | None:
    """Returns the seconds that Ortto's 429 asks to wait: `try-in-seconds` at the top level of its body or one below."""
    answer = _object(content)
    for value in [answer, *(nested for _, nested in answer)]:
        asked = value_at(value, "try-in-seconds")
        if isinstance(asked, str) and _SECONDS.fullmatch(asked):
            return float(asked)
    return None


def _object(content: bytes) -> JsonObject:
    """Returns the JSON object in the body of an error, or an empty one if the body is something else."""
    with suppress(TooManyValues, Truncated, NotJson):
        answer = decode_json(content)
        return answer if isinstance(answer, JsonObject) else JsonObject()
    return JsonObject()


def _json(call: Call, response: httpx.Response, content: bytes) -> JsonValue:
    status = response.status_code
    try:
        return decode_json(content)
    except TooManyValues:
        text = f"the answer has more than {MAX_VALUES:,} values of JSON"
        raise call.error(UnexpectedResponse, text, status) from None
    except Truncated:
        failure = TransientFailure("the answer broke off", status)
        raise failure if call.idempotent else call.outcome_unknown(failure) from None
    except TooDeep as error:
        text = f"the answer is nested too deeply to be read: more than {MAX_ANSWER_DEPTH} objects or arrays in another"
        unexpected = call.error(UnexpectedResponse, text, status)
        unexpected.content = masking.masked(content[:_KEPT].decode("utf-8", "replace"))
        raise unexpected from error
    except NotJson:
        kind = response.headers.get("Content-Type", "no content type")
        begin = masking.masked(content[:_ERROR_BODY].decode("utf-8", "replace"))[:60]
        text = f"expected JSON, got {kind} that begins {begin!r}{request_id(response)}"
        unexpected = call.error(UnexpectedResponse, text, status)
        unexpected.content = masking.masked(content[:_KEPT].decode("utf-8", "replace"))
        raise unexpected from None


# ---- texts of errors -----------------------------------------------------------------------------------------------


def request_id(response: httpx.Response) -> str:
    """Returns ` (Request-Id …)`, which Segment's support asks for; empty without that header."""
    found = response.headers.get("Request-Id")
    return f" (Request-Id {_shortened(found)})" if found else ""


def _server_message(response: httpx.Response, content: bytes) -> str:
    """Returns the server's own text in one line.

    Autopilot sends `{"error","message"}`, Segment `{"error":{"code","message"}}`, Ortto `{"error","request_id"}`.
    """
    answer = _object(content)
    code, message = answer.value("error"), answer.value("message")
    if isinstance(code, JsonObject):
        code, message = code.value("code"), code.value("message")
    parts = (to_json(part) if isinstance(part, list) else str(part) for part in (code, message) if part)
    # The code is left out if it only repeats the status.
    text = ": ".join(part for part in parts if part.casefold() != _phrase(response.status_code).casefold())
    if text and as_text(answer.value("request_id")):
        text = f"{text} (request {answer.value('request_id')})"
    is_json = "json" in response.headers.get("Content-Type", "")
    text = text or ("" if is_json else content.decode("utf-8", "replace"))
    text = _shortened(masking.masked(text))  # masked first, because a part of a secret would not be recognised
    return (text + request_id(response)).strip()


def _shortened(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _MOST_TEXT else line[:_MOST_TEXT] + "…"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _redirect_target(response: httpx.Response) -> str:
    """Returns the target of a redirect: scheme and host only, because the rest may be anything."""
    with suppress(httpx.InvalidURL):
        url = response.request.url.join(response.headers.get("Location", ""))
        return f"{url.scheme}://{url.netloc.decode()}"
    return "nowhere"
