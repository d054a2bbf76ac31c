"""The same meaning written the usual way: one ORM call after the other. A rival, not an example."""
