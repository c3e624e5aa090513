"""What schemathesis finds in the program that runs: make test-contract, for it needs schemathesis."""
