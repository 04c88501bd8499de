"""Study a generator by more than one number: comparison, truncation sweep, neighbours, confusions, cost."""
