"""Defines what Segment's messages mean: their fields, their names, and who a person is. Data in, data out."""
