"""One job in this process: from a composed config to a folder that holds what it reached."""
