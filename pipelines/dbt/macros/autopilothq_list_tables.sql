{#- Has dbt list the dataset's tables before any model is made. Otherwise it lists them when a model first asks for one,
    and a model in another thread can find some of them missing meanwhile. -#}

{%- macro autopilothq_list_tables() -%}
  {%- if execute -%}
    {%- set table = source('autopilothq', 'tracks') -%}
    {%- do adapter.get_relation(table.database, table.schema, table.identifier) -%}
  {%- endif -%}
{%- endmacro -%}
