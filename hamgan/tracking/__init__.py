"""Record a run: rows, sample sheets, trackers, one HTML page."""
