"""Autopilot's own API."""
