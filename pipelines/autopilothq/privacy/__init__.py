"""Deletes a person: their ids, their rows, their lines in the archive, and the list that keeps them out of loads."""
