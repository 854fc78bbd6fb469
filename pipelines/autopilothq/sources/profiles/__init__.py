"""Segment's Profile API."""
