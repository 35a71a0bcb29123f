"""What is written down of a run: records and receipts, events, metrics. Never an output byte, never a secret.

The chain, from the form of a record to the files: `canonical`, `record`, `key`, `links`, `head`, `segments`, `lock`,
`files`, `recovery`, `chain`, `flush`, `log` (`AuditLog`); read again by `verify` and `reading`; `checkpoint` signs
places in it. Receipts: `digest`, `statement`, `dsse`, `signing`, `receipt`. `payload` holds the words of the records.
Beside them `events`, `sinks`, `metrics` and `usage`.
"""
