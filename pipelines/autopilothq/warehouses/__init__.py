"""Where data lands: dlt's destinations, their datasets and tables, and the locks on them."""
