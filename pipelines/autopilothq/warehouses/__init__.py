"""Where data lands: what the package knows of dlt's destinations beyond dlt's documentation."""
