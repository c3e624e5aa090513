"""Tests with schemathesis, which requires its own environment: make test-contract."""
