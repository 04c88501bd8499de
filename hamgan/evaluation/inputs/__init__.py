"""Open samples and references: generators, folders, arrays, data sets."""
