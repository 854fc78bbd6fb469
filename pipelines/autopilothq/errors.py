"""Every error that this package raises on purpose, in one tree. Programs that embed it catch `AutopilothqError`.

    AutopilothqError
    ├── RunError                  a run or a command cannot be carried out; nothing of it counts as done
    │   ├── BusyError             another run, or another program, is at work with the same target
    │   ├── DatasetNotFound       the destination has no such dataset yet
    │   ├── EngineError           the workers of an engine cannot carry out a load
    │   ├── InvalidQuery          a query is not one statement that only reads
    │   ├── SuppressionKeyError   the key of the suppression list is missing or wrong
    │   ├── TooManyRejects        everything that could be loaded was, but more was rejected than allowed
    │   └── NothingFound          there was nothing to load
    ├── NotSupported              a source does not support what was requested
    │   └── CannotMerge           the destination cannot keep rows unique
    ├── ArchiveError              the archive cannot be found, listed or read
    ├── BooksMisplaced            the books of earlier loads are in another dataset
    ├── FolderNotOwned            another user prepared a folder that this process would trust
    ├── ApiError                  an API did not do what was asked
    │   ├── InvalidSetting        no request can be made with a setting; nothing was sent
    │   ├── NotAuthorized         401 or 403
    │   ├── RequestRejected       any other 4xx
    │   │   └── NotFound          404
    │   ├── ContactLimit          507: the account holds as many contacts as its plan allows
    │   ├── Unavailable           every attempt failed: 408, 429, 5xx, or the network
    │   ├── OutcomeUnknown        a request that must not be repeated was sent, and got no answer
    │   └── UnexpectedResponse    a success whose body is not what the API documents
    ├── DeliveryFailed            rows cannot be delivered now; also dlt's DestinationTransientException
    └── DeliveryImpossible        a key or setting is wrong, so no row can be; also dlt's DestinationTerminalException

The last two are in `destination.errors`, because they derive from dlt's errors as well.

Each message says what was expected, where, what was found, and what to do. No message holds a secret.
"""

from collections.abc import Iterator


class AutopilothqError(Exception):
    """The root of all errors that this package raises on purpose."""


class RunError(AutopilothqError):
    """A run or a command that cannot be carried out. The message has one or two lines: why, and what to do."""

    status = 1
    """The exit status of the program."""


class BusyError(RunError):
    """Another run, or another program, is at work with the same target. Trying again later helps."""

    status = 75  # EX_TEMPFAIL of sysexits.h


class DatasetNotFound(RunError):
    """The destination has no such dataset yet."""


class EngineError(RunError):
    """The workers of an engine cannot carry out a load: wrong versions, no way to the work folder, or they died."""


class InvalidQuery(RunError):
    """A user's query is not one statement that only reads."""


class SuppressionKeyError(RunError):
    """The key of the suppression list is missing, or is not the one that the list was made with."""


class TooManyRejects(RunError):
    """Everything that could be loaded was loaded, but more lines were rejected than `--max-rejects` allows."""

    status = 3


class NothingFound(RunError):
    """There was nothing to load, neither new nor known, and `--fail-if-empty` was given."""

    status = 3


class NotSupported(AutopilothqError):
    """A source does not support what its settings or dlt's hints request; nothing was written."""


class CannotMerge(NotSupported):
    """The destination cannot keep rows unique, so loading twice would store them twice."""


class ArchiveError(AutopilothqError):
    """The archive cannot be found, listed or read."""


class BooksMisplaced(AutopilothqError):
    """The books of earlier loads are in another dataset than the one that is configured."""


class FolderNotOwned(AutopilothqError):
    """A folder that this process would trust belongs to another user, in a place where everybody may create folders."""


class ApiError(AutopilothqError):
    """An API did not do what was asked.

    The message is for people. For programs there are `method`, `path`, `status` (None if no response came),
    `server_message` (the server's own text), and `attempts` (how often the request was sent). None of them holds a
    secret.
    """

    def __init__(
        self,
        text: str,
        *,
        method: str = "",
        path: str = "",
        status: int | None = None,
        server_message: str = "",
        attempts: int = 0,
    ) -> None:
        super().__init__(text)
        self.method, self.path, self.status = method, path, status
        self.server_message, self.attempts = server_message, attempts


class InvalidSetting(ApiError):
    """A setting that no request can be made with; nothing was sent."""


class NotAuthorized(ApiError):
    """401 or 403: the key is wrong, or may not do this. Every further request would fail as well.

    If Autopilot answers 403 to a request that writes, it is a `RequestRejected`, because it is about that request only.
    """


class RequestRejected(ApiError):
    """The server understood the request and refuses it (4xx). Sending it again does not help."""


class NotFound(RequestRejected):
    """404: what the request names does not exist."""


class ContactLimit(ApiError):
    """Ortto's 507: the account holds as many contacts as its plan allows. Every further new one would be refused."""


class Unavailable(ApiError):
    """Every attempt that the settings allow failed: 408, 429, 5xx, or the network. Trying again later may help.

    `wait` is the number of seconds that the server asks to wait, if this run cannot wait so long; otherwise None.
    """

    wait: float | None = None


class OutcomeUnknown(ApiError):
    """A request that must not be repeated was sent, and whether it was carried out is unknown."""


class UnexpectedResponse(ApiError):
    """The server answered 2xx or 3xx with a body that this API does not document; `content` is that body."""

    content: str = ""


def causes(error: BaseException | None, *links: str) -> Iterator[BaseException]:
    """Yields an error and its causes, each once.

    `links` are the attributes that may hold the next cause; the first one that holds an exception counts.

    Example: `causes(error, "__cause__", "__context__")`.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = (getattr(error, link, None) for link in links)
        error = next((found for found in inner if isinstance(found, BaseException)), None)
