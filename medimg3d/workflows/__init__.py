"""One file per user's job: ingest, train, evaluate, predict, demo."""
