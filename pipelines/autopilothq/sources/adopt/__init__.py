"""The origin of tables that Segment's loader left in a warehouse."""
