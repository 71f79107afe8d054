"""Fuzzing: parsers of what others have written must give a value or an error of ours, whatever they are fed."""
