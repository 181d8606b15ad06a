"""The commands, a module a group. `cli.py` names them; what is heavy is imported inside the command that uses it."""
