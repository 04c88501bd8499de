"""Find the pictures of a source, with their classes and splits."""
