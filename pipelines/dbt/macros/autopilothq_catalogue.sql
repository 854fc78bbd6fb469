{#- Made from pipelines/autopilothq/models by `make docs`: change it there. -#}

{%- macro autopilothq_columns() -%}
  {{ return({
    'email_events': [['id', 'id', 'text', false], ['received_at', 'received_at', 'timestamp', false], ['uuid_ts', 'uuid_ts', 'timestamp', false], ['anonymous_id', 'anonymous_id', 'text', false], ['user_id', 'user_id', 'text', false], ['timestamp', 'timestamp', 'timestamp', false], ['context_traits_email', 'context_traits_email', 'text', false], ['context_traits_contact_id', 'context_traits_contact_id', 'text', false], ['event', 'sent_event', 'text', false], ['event_text', 'event_text', 'text', false], ['campaign_id', 'campaign_id', 'text', false], ['campaign_name', 'campaign_name', 'text', false], ['email_id', 'email_id', 'text', false], ['email_name', 'email_name', 'text', false], ['email_subject', 'email_subject', 'text', false], ['transactional', 'transactional', 'bool', false], ['link_id', 'link_id', 'text', false], ['link_url', 'link_url', 'text', false], ['email', 'email', 'text', true], ['machine', 'machine_text', 'text', true]],
    'messages': [['id', 'id', 'text', false], ['received_at', 'received_at', 'timestamp', false], ['uuid_ts', 'uuid_ts', 'timestamp', false], ['anonymous_id', 'anonymous_id', 'text', false], ['user_id', 'user_id', 'text', false], ['timestamp', 'timestamp', 'timestamp', false], ['context_traits_email', 'context_traits_email', 'text', false], ['context_traits_contact_id', 'context_traits_contact_id', 'text', false], ['event', 'sent_event', 'text', false], ['event_text', 'event_text', 'text', false], ['campaign_id', 'campaign_id', 'text', false], ['campaign_name', 'campaign_name', 'text', false], ['email_id', 'email_id', 'text', false], ['email_name', 'email_name', 'text', false], ['email_subject', 'email_subject', 'text', false], ['transactional', 'transactional', 'bool', false], ['link_id', 'link_id', 'text', false], ['link_url', 'link_url', 'text', false], ['previous_id', 'previous_id', 'text', false], ['name', 'name', 'text', false], ['category', 'category', 'text', false], ['group_id', 'group_id', 'text', false], ['email', 'email', 'text', true], ['machine', 'machine_text', 'text', true]]
  }) }}
{%- endmacro -%}

{%- macro autopilothq_undeclared() -%}
  {{ return({
    'email_bounced': ['link_id', 'link_url', 'previous_id', 'name', 'category', 'group_id'],
    'email_delivered': ['link_id', 'link_url', 'previous_id', 'name', 'category', 'group_id'],
    'email_clicked': ['previous_id', 'name', 'category', 'group_id'],
    'email_marked_as_spam': ['link_id', 'link_url', 'previous_id', 'name', 'category', 'group_id'],
    'email_opened': ['link_id', 'link_url', 'previous_id', 'name', 'category', 'group_id'],
    'email_unsubscribed': ['link_id', 'link_url', 'previous_id', 'name', 'category', 'group_id'],
    'email_replied': ['link_id', 'link_url', 'previous_id', 'name', 'category', 'group_id'],
    'tracks': ['campaign_id', 'campaign_name', 'email_id', 'email_name', 'email_subject', 'transactional', 'link_id', 'link_url', 'previous_id', 'name', 'category', 'group_id'],
    'identifies': ['event', 'event_text', 'campaign_id', 'campaign_name', 'email_id', 'email_name', 'email_subject', 'transactional', 'link_id', 'link_url', 'previous_id', 'name', 'category', 'group_id'],
    'aliases': ['event', 'event_text', 'campaign_id', 'campaign_name', 'email_id', 'email_name', 'email_subject', 'transactional', 'link_id', 'link_url', 'name', 'category', 'group_id'],
    'pages': ['event', 'event_text', 'campaign_id', 'campaign_name', 'email_id', 'email_name', 'email_subject', 'transactional', 'link_id', 'link_url', 'previous_id', 'group_id'],
    'screens': ['event', 'event_text', 'campaign_id', 'campaign_name', 'email_id', 'email_name', 'email_subject', 'transactional', 'link_id', 'link_url', 'previous_id', 'group_id'],
    'groups': ['event', 'event_text', 'campaign_id', 'campaign_name', 'email_id', 'email_name', 'email_subject', 'transactional', 'link_id', 'link_url', 'previous_id', 'name', 'category']
  }) }}
{%- endmacro -%}

{%- macro autopilothq_types() -%}
  {{ return({
    'postgres': {'text': 'TEXT', 'bigint': 'BIGINT', 'double': 'DOUBLE PRECISION', 'bool': 'BOOLEAN', 'timestamp': 'TIMESTAMPTZ'},
    'redshift': {'text': 'VARCHAR(MAX)', 'bigint': 'BIGINT', 'double': 'DOUBLE PRECISION', 'bool': 'BOOLEAN', 'timestamp': 'TIMESTAMP WITH TIME ZONE'},
    'snowflake': {'text': 'VARCHAR', 'bigint': 'BIGINT', 'double': 'DOUBLE', 'bool': 'BOOLEAN', 'timestamp': 'TIMESTAMPTZ'},
    'bigquery': {'text': 'STRING', 'bigint': 'INT64', 'double': 'FLOAT64', 'bool': 'BOOL', 'timestamp': 'TIMESTAMP'},
    'databricks': {'text': 'STRING', 'bigint': 'BIGINT', 'double': 'DOUBLE', 'bool': 'BOOLEAN', 'timestamp': 'TIMESTAMP'}
  }) }}
{%- endmacro -%}
