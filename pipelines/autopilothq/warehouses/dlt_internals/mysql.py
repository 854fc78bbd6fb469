"""MySQL and MariaDB in dlt's SQLAlchemy destination: columns of text that hold and compare all of it.

dlt makes columns of type TEXT with the server's collation. In these a text has at most 65,535 bytes, and by default
`Bob`, `bob` and `bob ` are the same key, so that a merge would delete rows of others.
"""

from functools import cache
from typing import Any

from ..native import SEGMENT_TABLE_HINT
from . import DLT_NAME_PREFIX


@cache
def use_exact_text() -> None:
    """Makes dlt, once per process, create columns of text as LONGTEXT that is compared byte by byte.

    It affects new tables of this package, and dlt's own, in MySQL and MariaDB; a user's other tables stay as dlt makes
    them. The package `sqlalchemy` must be installed.
    """
    from dlt.destinations.impl.sqlalchemy.dialect import MysqlDialectCapabilities, register_dialect_capabilities
    from dlt.destinations.impl.sqlalchemy.type_mapper import MysqlVariantTypeMapper
    from sqlalchemy import Text
    from sqlalchemy.ext.compiler import compiles

    class ExactText(Text):
        pass

    @compiles(ExactText, "mysql", "mariadb")
    def longtext(_: Any, compiler: Any, **__: Any) -> str:
        collation = "utf8mb4_nopad_bin" if compiler.dialect.is_mariadb else "utf8mb4_0900_bin"
        return f"LONGTEXT CHARACTER SET utf8mb4 COLLATE {collation}"

    class ExactTypeMapper(MysqlVariantTypeMapper):
        def db_type_from_text_type(self, column: Any, table: Any) -> Any:
            usual = super().db_type_from_text_type(column, table)
            name = table.get("name", "")
            is_foreign = name and not name.startswith(DLT_NAME_PREFIX) and not table.get(SEGMENT_TABLE_HINT)
            return ExactText() if isinstance(usual, Text) and not is_foreign else usual

    class ExactCapabilities(MysqlDialectCapabilities):
        def type_mapper_class(self) -> type[MysqlVariantTypeMapper]:
            return ExactTypeMapper

    for name in ("mysql", "mariadb"):
        register_dialect_capabilities(name, ExactCapabilities)
