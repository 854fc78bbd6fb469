"""The origin of tables that Segment's or RudderStack's loader left in a warehouse."""
