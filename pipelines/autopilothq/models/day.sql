-- The day of an event, of UTC, whatever the session's time zone.
CAST(occurred_at AT TIME ZONE 'UTC' AS DATE)
