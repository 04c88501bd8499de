"""Open what is measured: generators, folders, arrays, data sets."""
