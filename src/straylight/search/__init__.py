"""Searches: trials of a sweep, each chosen by what earlier ones reached."""
