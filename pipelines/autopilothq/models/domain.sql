-- The mailbox domain of a person: what follows the last @. There is none without an @, or if nothing follows.
CASE
    WHEN person LIKE '%@%' AND NOT person LIKE '%@' THEN reverse(left(reverse(person), strpos(reverse(person), '@') - 1))
END
