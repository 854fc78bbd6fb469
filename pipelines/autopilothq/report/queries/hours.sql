-- People x emails by the hour (since 1970, UTC) of the first delivery, apart by whether they are rated.
SELECT hour, rated, {measures}
FROM (
    SELECT *, CAST(floor(epoch(first_delivered_at) / 3600) AS BIGINT) AS hour, {rated} AS rated FROM person_email
) AS by_hour
GROUP BY hour, rated
