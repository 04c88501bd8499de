"""Hold the tests; a package, so that processes which a test starts can import its functions."""
