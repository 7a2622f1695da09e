"""Speech services."""
