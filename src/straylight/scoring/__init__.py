"""New rows, scored by a finished run: files to files, in bounded memory, each once."""
