"""Jobs on a cluster of Ray's."""
