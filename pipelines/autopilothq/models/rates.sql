-- Shares, mostly of the people delivered; null if the denominator is 0. Only bounce_rate and click_to_open_rate can
-- exceed 1: most of those whose mail bounced are not among the people delivered, and not every click has a known open.
CAST(opened AS DOUBLE) / nullif(people, 0) AS open_rate,
CAST(human_opened AS DOUBLE) / nullif(people, 0) AS human_open_rate,
CAST(clicked AS DOUBLE) / nullif(people, 0) AS click_rate,
CAST(clicked AS DOUBLE) / nullif(opened, 0) AS click_to_open_rate,
CAST(replied AS DOUBLE) / nullif(people, 0) AS reply_rate,
CAST(bounced AS DOUBLE) / nullif(people, 0) AS bounce_rate,
CAST(bounced AS DOUBLE) / nullif(attempted, 0) AS bounce_rate_of_attempted,
CAST(complained AS DOUBLE) / nullif(people, 0) AS complaint_rate,
CAST(unsubscribed AS DOUBLE) / nullif(people, 0) AS unsubscribe_rate
