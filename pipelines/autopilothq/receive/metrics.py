"""The receiver's metrics, for Prometheus."""

import functools

from prometheus_client import Counter, Gauge, Histogram

PREFIX = "autopilothq_receive"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 3, 10)

REQUESTS = Counter(f"{PREFIX}_requests", "Requests, by endpoint and status.", ("endpoint", "status"))
MESSAGES = Counter(f"{PREFIX}_messages", "Messages written to the disk, by endpoint.", ("endpoint",))
DELETIONS = Counter(f"{PREFIX}_deletions", "Messages of the type delete, by endpoint.", ("endpoint",))
UNAUTHORIZED = Counter(f"{PREFIX}_unauthorized", "Requests refused with 401, by endpoint.", ("endpoint",))
SECONDS_TAKEN = Histogram(
    f"{PREFIX}_request_seconds", "Seconds from the last byte of a request to its answer.", buckets=SECONDS
)
SYNC = Histogram(f"{PREFIX}_sync_seconds", "Seconds to write and sync the waiting messages.", buckets=SECONDS)
PENDING = Gauge(f"{PREFIX}_pending_bytes", "Bytes that wait for the disk.", multiprocess_mode="livesum")
OLDEST = Gauge(
    f"{PREFIX}_oldest_unpublished_seconds", "The age of the oldest unpublished file.", multiprocess_mode="livemax"
)
PUBLISHED = Counter(f"{PREFIX}_published_files", "Files published to the archive.")
UPLOADED = Counter(f"{PREFIX}_uploaded_files", "Files uploaded to the bucket.")


def begin(endpoint: str) -> None:
    """Starts an endpoint's counters at 0, because Prometheus sees no increase when a counter starts at 1."""
    for counter in (MESSAGES, DELETIONS, UNAUTHORIZED):
        counter.labels(endpoint)


@functools.lru_cache(maxsize=1000)
def requests(endpoint: str, status: int) -> Counter:
    """Returns the counter of an endpoint's requests with a status. The cache is faster than Prometheus's lookup."""
    return REQUESTS.labels(endpoint, status)
