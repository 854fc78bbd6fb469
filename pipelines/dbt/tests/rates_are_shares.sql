-- These rates are shares of the people who got the email, so none is negative or above one.
{% set rates = ['open_rate', 'human_open_rate', 'click_rate', 'reply_rate', 'complaint_rate', 'unsubscribe_rate'] %}
{% for rate in rates %}
SELECT email_id, {{ rate }} AS rate FROM {{ ref('email_overview') }} WHERE {{ rate }} < 0 OR {{ rate }} > 1
{{ 'UNION ALL' if not loop.last }}
{% endfor %}
