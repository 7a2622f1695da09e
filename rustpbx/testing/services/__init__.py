"""The speech services of the outside, as their documentation says they behave: for tests without an account."""
