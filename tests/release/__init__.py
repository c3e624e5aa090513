"""The release, built twice (make test-release)."""
