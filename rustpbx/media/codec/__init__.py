"""Audio codecs as table look-ups and streaming objects over numpy rows, and sample-rate conversion."""
