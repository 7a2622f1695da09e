"""The test tools, tested."""
