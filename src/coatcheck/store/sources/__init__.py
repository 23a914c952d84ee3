"""Values that come from elsewhere: one port, and an adapter for each kind of source."""
