"""Every command of the documents, run as written (make test-documentation)."""
