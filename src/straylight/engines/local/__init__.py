"""Jobs on this machine, each in a process that is forked from one that has imported everything."""
