"""Let the processes of a run act as one: groups, signals, failures, cores."""
