"""Study a generator beyond one number."""
