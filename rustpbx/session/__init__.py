"""One machine per call: commands and facts in, events and wishes out."""
