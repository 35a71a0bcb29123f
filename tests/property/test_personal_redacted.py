"""After personal data is redacted, nothing that would be redacted is left, whatever stood beside it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kavach.gate.judge import Action, judge
from kavach.gate.personal import PERSONAL
from kavach.gate.release import release_bytes
from kavach.gate.scan import scan_bytes
from kavach.model.verdict import ExternalizationPolicy

THINGS = (
    "4111111111111111",
    "4012-8888-8888-1881",
    "4716989580001715211",
    "GB29 NWBK 6016 1331 9268 19",
    "DE89370400440532013000",
    "123-45-6789",
    "123 45 6789",
    "jane@clinic.org",
    "(415) 555-0132",
    "+49 30 1234567",
    "81.2.69.142",
    "2a00:1450:4001:81b::200e",
    "390.533.447-05",
    "44051401359",
    "987654321",
    "12345678",
)
WORDS = ("card", "passport", "ssn", "PESEL", "CPF", "phone", "patient", "confidential", "ip", "visa no.", "x", "7")
JOINTS = (" ", "", "\n", ": ", ",", "/", "-", ".", "=", '", "', "(", "] ", "@", "+")
texts = st.lists(st.sampled_from(THINGS + WORDS) | st.sampled_from(JOINTS), max_size=12).map("".join)


def released(data: bytes, policy: ExternalizationPolicy) -> bytes:
    return release_bytes(data, name="stdout", policy=policy, scanners=(PERSONAL,), salt=bytes(16)).released


@settings(max_examples=60)
@given(texts, st.sampled_from([ExternalizationPolicy.redact(), ExternalizationPolicy(mode="enforce")]))
def test_nothing_is_found_after_redaction_and_redacting_again_changes_nothing(text, policy):
    clean = released(text.encode(), policy)
    marks = scan_bytes(clean, policy, scanners=(PERSONAL,))
    assert Action.REDACT not in judge(marks, policy).actions
    assert released(clean, policy) == clean
