"""The nouns of Kavach: frozen, validated, without I/O, clock or kernel.

Enforces: that a policy, a configuration or a command that passed `validate.check` has the types and bounds it
claims. Does not: decide anything (that is `kavach.policy`), run anything, or read a file.
May be imported by every layer above; imports `kavach.errors` and msgspec only.
"""
