-- The persons that emails were delivered to, each once.
SELECT count(DISTINCT person) AS people FROM person_email WHERE deliveries > 0
