-- Who a row is about: the contact's email in lower case, otherwise the user id, otherwise the anonymous id. An id with
-- an @ is also an email, because Autopilot sends the email as an id; blank text is no id.
CASE
    WHEN trim(context_traits_email) <> '' THEN lower(trim(context_traits_email))
    WHEN trim(email) <> '' THEN lower(trim(email))
    WHEN trim(user_id) LIKE '%@%' THEN lower(trim(user_id))
    WHEN trim(user_id) <> '' THEN trim(user_id)
    WHEN trim(anonymous_id) LIKE '%@%' THEN lower(trim(anonymous_id))
    WHEN trim(anonymous_id) <> '' THEN trim(anonymous_id)
END
