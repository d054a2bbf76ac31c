"""Settings, wiring and local services. Nothing of the domain."""
