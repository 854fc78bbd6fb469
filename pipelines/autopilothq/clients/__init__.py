"""HTTP clients: the code that all of them share, and a client for each API."""
