"""A file of the user's own becomes events: what it holds, which column is what, and how each becomes numbers."""
