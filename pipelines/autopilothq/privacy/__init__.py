"""Deleting a person: which ids are theirs, their rows, their lines, and the list that keeps them out."""
