"""Hold the tests, as a package so that processes which a test starts can import its functions."""
