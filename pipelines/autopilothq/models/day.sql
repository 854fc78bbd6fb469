-- The UTC day of an event, whatever the session's time zone.
CAST(occurred_at AT TIME ZONE 'UTC' AS DATE)
