-- Who a row is about: the contact's email in lower case, otherwise the user id, otherwise the anonymous id. An id with
-- an @ is also an email, because Autopilot sends the email as an id; blank text is no id.
CASE
    WHEN trim(context_traits_email, {blanks}) <> '' THEN lower(trim(context_traits_email, {blanks}))
    WHEN trim(email, {blanks}) <> '' THEN lower(trim(email, {blanks}))
    WHEN user_id LIKE '%@%' THEN lower(trim(user_id, {blanks}))
    WHEN trim(user_id, {blanks}) <> '' THEN trim(user_id, {blanks})
    WHEN anonymous_id LIKE '%@%' THEN lower(trim(anonymous_id, {blanks}))
    WHEN trim(anonymous_id, {blanks}) <> '' THEN trim(anonymous_id, {blanks})
END
