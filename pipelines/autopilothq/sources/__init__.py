"""The dlt sources: a module for what all of them share, a folder for each origin."""
