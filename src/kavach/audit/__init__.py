"""What is written down of a run: records and receipts, events, metrics. Never an output byte, never a secret."""
