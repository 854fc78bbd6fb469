"""Deletes a person: their ids, their rows, their lines in the archive, and the list that keeps them out of loads."""

MAX_IDS = 5  # ids of a person, at most, that are deleted without a confirmation
