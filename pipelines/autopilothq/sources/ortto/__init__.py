"""Ortto's own API."""
