-- The links that most people clicked.
SELECT link_url, email_name, campaign_name, clicked, clicks, people FROM link_overview
WHERE people > 0
ORDER BY clicked DESC, clicks DESC, link_url LIMIT 12
