{#- The columns of a table of messages that the models read. A table or a column that the dataset lacks is null. -#}

{%- macro autopilothq_rows(table, block) -%}
  {%- set undeclared = autopilothq_undeclared()[table] -%}
  {%- set types = autopilothq_types() -%}
  {%- set type_of = types.get(target.type, types['postgres']) -%}
  {%- set named = source('autopilothq', table) -%}
  {%- set relation = none -%}
  {%- set found = {} -%}
  {%- if execute -%}
    {%- set relation = adapter.get_relation(named.database, named.schema, named.identifier) -%}
    {%- for column in (adapter.get_columns_in_relation(relation) if relation else []) -%}
      {%- do found.update({column.name | lower: column.quoted}) -%}
    {%- endfor -%}
  {%- endif -%}
  SELECT
  {%- for column, name, type, cast in autopilothq_columns()[block] %}
    {%- set cell = found.get(column) if column not in undeclared else none %}
    {%- set alias = name if target.type == 'snowflake' else adapter.quote(name) %}
    {% if not cell %}CAST(NULL AS {{ type_of[type] }}){% elif cast %}CAST({{ cell }} AS {{ type_of['text'] }}){% else %}{{ cell }}{% endif %} AS {{ alias }}{{ ',' if not loop.last }}
  {%- endfor %}
  {% if relation %}FROM {{ relation }}{% else %}LIMIT 0{% endif %}
{%- endmacro -%}
