"""Writes the dbt package from the models: `make docs`. A test fails if one of its files differs.

A model has the SQL of `autopilothq/models/`, in the dialects of dbt's adapters, with `ref` and `source` in place of
other relations. What a dataset lacks is null, as in the views: a macro looks for it when dbt runs.
"""

import re
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlglot
import yaml
from sqlglot import exp

from autopilothq import catalog, inspect
from autopilothq.models import BY_NAME, MODELS, Metric, Model
from autopilothq.models.render import BASE_TYPES, MESSAGE_TYPES, columns_read, declares, described_rows, expanded, file

HOME = Path(__file__).parents[1] / "pipelines" / "dbt"
USUAL = "postgres"  # DuckDB runs this SQL as well
OTHERS = ("redshift", "snowflake", "bigquery", "databricks")
BLOCKS = {"email_events": catalog.EVENT_TABLE_NAMES, "messages": tuple(MESSAGE_TYPES)}
GENERATED = "Made from pipelines/autopilothq/models by `make docs`: change it there."
INCREMENTAL = ("person_timeline",)  # a row per message, which never changes
_REF = re.compile(r'["`]ref:(\w+)["`]')
_ROWS = re.compile(r'SELECT\s+\*\s+FROM ["`]rows:(\w+)["`]')

# ---- SQL -------------------------------------------------------------------------------------------------------------


def for_adapters(sql: str) -> str:
    """Returns a query, given in DuckDB's dialect, for dbt's adapters, with branches for the lines that differ."""
    texts = (_in(sql, dialect).splitlines() for dialect in (USUAL, *OTHERS))
    runs = groupby(zip(*texts, strict=True), key=lambda line: len(set(line)) == 1)
    return "\n".join(_branches(*map("\n".join, zip(*lines, strict=True))) for _, lines in runs)


def _branches(usual: str, *others: str) -> str:
    """Returns lines of the usual dialect, after branches for the other dialects whose lines differ from them."""
    dialects: dict[str, list[str]] = {}
    for dialect, text in zip(OTHERS, others, strict=True):
        dialects.setdefault(text, []).append(dialect)
    dialects.pop(usual, None)
    branches = [
        f"{{%- {'elif' if number else 'if'} target.type in {found} %}}\n{text}\n"
        for number, (text, found) in enumerate(dialects.items())
    ]
    return "".join([*branches, f"{{%- else %}}\n{usual}\n{{%- endif %}}"]) if branches else usual


def _in(sql: str, dialect: str) -> str:
    parsed = sqlglot.parse_one(sql, dialect="duckdb")
    for table in parsed.find_all(exp.Table):
        name, is_raw = table.name, table.this.quoted
        if is_raw:
            table.set("this", exp.to_identifier(f"rows:{name}", quoted=True))
        elif name in BY_NAME or name in BLOCKS:
            table.set("alias", table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(name)))
            table.set("this", exp.to_identifier(f"ref:{name}", quoted=True))
    text = parsed.sql(dialect=dialect, pretty=True, comments=False)
    return _ROWS.sub("{{ autopilothq_rows(table, block) }}", _REF.sub(r"{{ ref('\1') }}", text))


def block_sql(name: str) -> str:
    """Returns the SQL of a block, which has the rows of several tables."""
    text = for_adapters(described_rows(catalog.TRACKS.name, f'SELECT * FROM "{catalog.TRACKS.name}"'))
    for one, variable in (("sent_event AS", "{{ event }} AS"), ("'tracks' AS", "'{{ table }}' AS")):
        assert one in text
        text = text.replace(one, variable)
    text = text.replace("'track' AS", "'{{ type }}' AS")
    lists = "".join(
        f"{{% set {variable} = {value} %}}\n"
        for variable, value in (
            ("block", repr(name)),
            ("seven", list(catalog.EVENT_TABLE_NAMES)),
            ("types", {table: MESSAGE_TYPES[table] for table in BLOCKS[name]}),
        )
    )
    return (
        f"{{{{ config(materialized='ephemeral') }}}}\n-- {GENERATED}\n{lists}"
        "{% for table, type in types.items() %}\n"
        """{% set event = "'" ~ table ~ "'" if table in seven else 'sent_event' %}\n"""
        f"{text}\n{{{{ 'UNION ALL' if not loop.last }}}}\n{{% endfor %}}\n"
    )


def model_sql(model: Model) -> str:
    """Returns the SQL of a model; a large model is incremental, so dbt adds only new rows."""
    text = for_adapters(expanded(file(model.name)))
    if model.name not in INCREMENTAL:
        return f"-- {GENERATED}\n{text}\n"
    config = f"{{{{ config(materialized='incremental', unique_key={list(model.key)}) }}}}"
    new = "WHERE loaded_at >= (SELECT max(loaded_at) FROM {{ this }})"
    return (
        f"{config}\n-- {GENERATED}\nSELECT * FROM (\n{text}\n) AS all_rows\n"
        f"{{% if is_incremental() %}}{new}{{% endif %}}\n"
    )


def macros() -> str:
    """Returns the macros with the columns that the models read, those that tables do not declare, and the types."""
    columns = {
        name: [[*column[:2], column.type, column.cast] for column in columns_read(tables)]
        for name, tables in BLOCKS.items()
    }
    undeclared = {
        table: [column.column for column in columns_read(BLOCKS["messages"]) if not declares(table, column)]
        for table in MESSAGE_TYPES
    }
    types = {dialect: _types(dialect) for dialect in (USUAL, *OTHERS)}
    values: dict[str, dict[str, Any]] = {"columns": columns, "undeclared": undeclared, "types": types}
    return f"{{#- {GENERATED} -#}}\n" + "".join(_macro(f"autopilothq_{name}", value) for name, value in values.items())


def _macro(name: str, value: dict[str, Any]) -> str:
    return f"\n{{%- macro {name}() -%}}\n  {{{{ return({_jinja(value)}) }}}}\n{{%- endmacro -%}}\n"


def _types(dialect: str) -> dict[str, str]:
    return {of: exp.DataType.build(name, dialect="duckdb").sql(dialect) for of, name in BASE_TYPES.items()}


def _jinja(value: dict[str, Any]) -> str:
    lines = ",\n".join(f"    {name!r}: {one!r}" for name, one in value.items())
    return f"{{\n{lines}\n  }}".replace("False", "false").replace("True", "true")


# ---- YAML ------------------------------------------------------------------------------------------------------------


def sources() -> str:
    """Returns the sources that the models read; `schema --format dbt` has the whole dataset, with tests."""
    found = yaml.safe_load(inspect.FORMATS["dbt"](inspect.catalogue(), "autopilothq"))
    [source] = found["sources"]
    source["schema"] = "{{ var('autopilothq_schema', 'autopilothq') }}"
    source["database"] = "{{ var('autopilothq_database', target.database) }}"
    source["tables"] = [table for table in source["tables"] if table["name"] in MESSAGE_TYPES]
    for table in source["tables"]:
        table.pop("data_tests", None)
        for column in table["columns"]:
            column.pop("data_tests", None)  # a table or a column may be missing
    return _yaml(found)


def properties() -> str:
    """Returns the models' descriptions, tests and metrics, as YAML."""
    return _yaml({"version": 2, "models": [_properties(model) for model in MODELS]})


def _properties(model: Model) -> dict[str, Any]:
    found: dict[str, Any] = {"name": model.name, "description": model.description}
    metrics = {name: _metric(metric) for name, metric in model.metrics.items() if metric.per}
    if metrics:
        found["config"] = {"meta": {"metrics": metrics}}
    if len(model.key) > 1:
        found["data_tests"] = [{"autopilothq_unique_together": {"arguments": {"columns": list(model.key)}}}]
    found["columns"] = [_column(model, name, text) for name, text in model.columns.items()]
    return found


def _column(model: Model, name: str, description: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "description": description}
    sums = {one: _metric(metric) for one, metric in model.metrics.items() if metric.of == name and not metric.per}
    if name in {column for metric in model.metrics.values() if metric.per for column in (metric.of, metric.per)}:
        sums[f"sum_{name}"] = {"type": "sum", "hidden": True}  # a part of a share
    meta: dict[str, Any] = {"metrics": sums} if sums else {}
    if model.key == (name,):
        meta["metabase.semantic_type"] = "type/PK"
    if meta:
        found["config"] = {"meta": meta}
    tests = [*(["unique"] if model.key == (name,) else []), *(["not_null"] if name in _never_null(model) else [])]
    if tests:
        found["data_tests"] = tests
    return found


def _never_null(model: Model) -> set[str]:
    return set(model.key) - set(model.nullable_key)


def _metric(metric: Metric) -> dict[str, Any]:
    if metric.per is None:
        return {"type": "sum", "description": metric.description}
    share = f"1.0 * ${{sum_{metric.of}}} / nullif(${{sum_{metric.per}}}, 0)"
    return {"type": "number", "description": metric.description, "sql": share, "format": "percent"}


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    return f"# {GENERATED}\n{text}"


def files() -> dict[str, str]:
    """Returns the texts of the package's generated files, by their paths in it."""
    found = {f"models/{model.name}.sql": model_sql(model) for model in MODELS}
    found |= {f"models/blocks/{name}.sql": block_sql(name) for name in BLOCKS}
    return found | {
        "macros/autopilothq_catalogue.sql": macros(),
        "models/sources.yml": sources(),
        "models/models.yml": properties(),
    }


def main() -> None:
    """Writes the files."""
    for path, text in files().items():
        file = HOME / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main()
