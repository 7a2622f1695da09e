"""Voice activity: detectors that call a frame voiced or not, and the semantics of speech and silence over them."""
