"""Settings: `base` for `make run` and production hosts, `test` for the test suite. Every variable is read in `base`."""
