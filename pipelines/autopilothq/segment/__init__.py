"""What Segment means: a message, its names, and who a person is. Data in, data out."""
