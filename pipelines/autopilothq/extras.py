"""Composes the command that installs an extra of this package, whether from the registry or from a checkout."""

import json
import os
from importlib.metadata import Distribution, distribution
from urllib.parse import unquote, urlparse

PACKAGE = "dlt-autopilothq"
EXTRAS = {"s3": "s3", "gs": "gcs", "az": "az", "sftp": "sftp"}
"""The extra that each scheme of a bucket needs."""
SCHEMES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
"""Other schemes in URLs of the same stores, with the one that `EXTRAS` has."""
_OWN = __name__.partition(".")[0]


def is_own_import_error(error: BaseException) -> bool:
    """Returns whether an import failed for a module of this package itself, which no extra would install."""
    return isinstance(error, ImportError) and str(error.name).partition(".")[0] == _OWN


def missing_of_bucket(url: str, missing: object) -> str:
    """Returns the message that a package for a bucket's URL is missing, with the command that installs it."""
    scheme = url.partition("://")[0]
    extra = EXTRAS.get(SCHEMES.get(scheme, scheme))
    todo = f"Install it: {install(extra)}" if extra else "Install the package named above."
    return f"{url} needs a package that is missing: {missing}\n{todo}"


def install(extra: str) -> str:
    """Returns the command that installs an extra of this package.

    Example: `pip install 'dlt-autopilothq[postgres]'`, or `pip install -e '.[postgres]'` in an editable checkout.
    """
    return install_from(distribution(PACKAGE), extra)


def install_from(package: Distribution, extra: str) -> str:
    """Returns the command that installs an extra of a package from where `package` was installed."""
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    if "dir_info" not in origin:
        return f"pip install '{PACKAGE}[{extra}]'"
    folder = unquote(urlparse(origin["url"]).path)
    here = "." if os.path.realpath(folder) == os.path.realpath(os.curdir) else folder
    return f"pip install {'-e ' if origin['dir_info'].get('editable') else ''}'{here}[{extra}]'"
