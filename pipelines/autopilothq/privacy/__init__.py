"""Deletes a person: finds the ids, removes rows and lines of the archive, and maintains the suppression list."""

MAX_IDS = 5  # more ids of a person are deleted only with a confirmation
