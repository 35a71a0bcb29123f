"""Where events and metrics can go: a logger, a file, Redis, OpenTelemetry, Prometheus, a status file for `kavach top`.

A sink is a callable for `EventBus.subscribe`. Guarantees: it raises nothing and counts what it could not deliver; a
server that is down costs events, never time: it is not asked again for a while. Does not: send anything unasked. May be
called by: users, kavach.cli.
"""
