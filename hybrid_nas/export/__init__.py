"""Files that a trainer loads, a module a format, and the way back. `formats.py` names them all."""
