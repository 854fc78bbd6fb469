"""An account of Ortto as an origin: one run over its people, or a part of one, and what else the account has."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dlt

from ...catalog import EVENT_TABLES, ORTTO_ACCOUNT, ORTTO_PEOPLE, PROFILES, TABLES, TRACKS
from ...clients.ortto import Ortto
from ...errors import ApiError, InvalidSetting, NotAuthorized, RequestRejected, Unavailable
from ...projection import DuePeople, People, Snapshot
from ...projection.context import TableRows
from ...segment.json_text import JsonObject
from ...segment.message import Batch
from ...segment.ortto import OrttoNames, OrttoReceipt, names_of_schema
from ...warehouses.dataset import audit_row
from ...warehouses.hints import SOURCE
from ...warehouses.query import answers
from ..extraction import EVENTS_RESOURCE
from ..origin import LoadContext, Origin
from ..scans import Scan, ScanBatch
from ..times import format_time
from .answers import Answers
from .beside import PARTS, Beside, note_loaded, plan_scans
from .feed import Asked, Feed, FeedScope
from .kinds import CUSTOM, kinds_of, selected_kinds
from .listed import Lookup, values_of_file
from .pages import Deadline, OutOfTime, Scanner
from .run import LOOKBACK, RUN_FOLDER, Run, RunKey, begin_run
from .who import ALL, WAYS, Found, Search, contact_of

SETTINGS = f"sources.{SOURCE}.ortto"
LIBRARY = "ortto-api"
ACTIVITIES = "activities"  # the name of the scan of people's activities
ACTIVE, EVERYBODY = "active", "all"
"""What `people` may be instead of a file or a query."""
EVENT_RESOURCES = (*(table.name for table in EVENT_TABLES), TRACKS.name, EVENTS_RESOURCE)
MIN_PEOPLE_TO_WARN = 10  # of so many people, the account should know one at least
