"""The media plane: every call's audio, stepped by one 20 ms clock (`plane.Plane` is the way in)."""
