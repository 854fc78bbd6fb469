-- People x emails by email, apart by whether they are rated.
SELECT email_id, rated, {measures}
FROM (SELECT *, {rated} AS rated FROM person_email) AS by_email
GROUP BY email_id, rated
