"""Deletes a person: their ids, their rows, their lines in the archive, and the list that keeps them out of loads."""

MAX_IDS = 5  # that are taken of a person without a confirmation
