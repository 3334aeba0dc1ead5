"""Sweeps: which jobs there are, which are known, which go on, are tried again, or have ended; by any engine."""
