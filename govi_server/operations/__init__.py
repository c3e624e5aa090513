"""Operations: health, readiness, metrics, status, snapshots and the manhole. None of them is on the public port."""
