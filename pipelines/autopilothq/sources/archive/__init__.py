"""Segment's raw archive."""
