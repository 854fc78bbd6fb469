"""Where messages come from: each origin is one module that delivers Segment messages."""
