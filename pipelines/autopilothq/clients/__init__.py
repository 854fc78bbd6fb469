"""HTTP outwards: what every client needs, and a client for each API."""
