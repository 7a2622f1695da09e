"""Call records and event files."""
