"""Fuzzing with atheris: `make fuzz`. What must hold is in `tests/kit/predicates.py`; docs/fuzzing.md has the rest."""
