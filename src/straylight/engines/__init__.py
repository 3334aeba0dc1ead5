"""How the folder of a job gets done somewhere: an engine each."""
