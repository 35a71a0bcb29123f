"""What doctor, backends, score, policy and bench report, as other programs read it."""

from __future__ import annotations

import json
import tomllib

import pytest
from command_line import kavach

pytestmark = pytest.mark.needs("linux", "userns")


def report(*words, code=0):
    done = kavach(*words)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_doctor_says_yes_exactly_where_strict_stands_whole():
    done = kavach("doctor", "--json")
    found = json.loads(done.stdout)
    strict = found["presets"]["strict"]
    assert done.returncode == (0 if strict["stands"] and not strict["weaker"] else 1)
    assert found["presets"]["basic"]["stands"]
    seen = {row["control"] for row in found["rows"] if row["observed"] and row["available"] == "yes"}
    assert {"pid_ns", "seccomp", "network"} <= seen
    assert all(row["cause"] or row["fix"] for row in found["rows"] if row["available"] == "no")
    assert isinstance(found["devices"], dict)


def test_doctor_names_a_fix_below_every_problem():
    text = kavach("doctor").stdout.decode()
    found = json.loads(kavach("doctor", "--json").stdout)
    for row in found["rows"]:
        if row["available"] != "yes" and row["fix"]:
            assert f"fix: {row['fix']}" in text
    assert "strict: " in text
    assert "best wall here: " in text


def test_backends_lists_the_ten_and_what_was_seen():
    rows = {row["backend"]: row for row in report("backends", "--json")["backends"]}
    assert len(rows) >= 10
    assert rows["process"]["available"]
    assert rows["process"]["score"] > 30
    assert not rows["noop"]["available"]
    assert all(row["reasons"] for row in rows.values() if not row["available"])


def test_score_rows_add_up_to_the_observed_strength():
    found = report("score", "strict", "--json")
    assert sum(row["points"] for row in found["rows"]) == found["observed"]["value"]
    assert found["requested"]["value"] >= found["observed"]["value"]
    assert all(row["to_raise"] for row in found["rows"] if row["points"] < row["worth"])
    assert report("score", "--policy", "strict", "--min", "1", "--json")["rows"]


def test_score_of_minimal_is_below_strict():
    assert report("score", "minimal", "--json")["observed"] != report("score", "strict", "--json")["observed"]


@pytest.mark.parametrize("name", ["minimal", "basic", "strict"])
def test_shown_policy_is_a_profile_that_means_the_same(name, tmp_path):
    text = kavach("policy", "show", name).stdout.decode()
    assert tomllib.loads(text)["extends"] == name
    profile = tmp_path / "shown.toml"
    profile.write_text(text, encoding="utf-8")
    assert kavach("policy", "check", str(profile)).returncode == 0
    assert kavach("policy", "diff", name, str(profile)).stdout.startswith(b"no difference\n")
    shown = report("policy", "show", str(profile), "--json")
    assert shown == report("policy", "show", name, "--json") == tomllib.loads(text)


def test_schema_accepts_what_show_prints_and_refuses_what_check_refuses():
    jsonschema = pytest.importorskip("jsonschema")
    schema = report("policy", "schema")
    jsonschema.validate(report("policy", "show", "strict", "--json"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"limits": {"memory_limit": 1}}, schema)


def test_diff_in_json_carries_both_values():
    found = report("policy", "diff", "basic", "strict", "--json")
    changes = {one["key"]: (one["before"], one["after"]) for one in found["changes"]}
    assert changes["filesystem.read_only_rootfs"] == (False, True)
    assert found["score_change"] == found["score_after"] - found["score_before"] > 0


def test_learned_policy_lets_the_program_pass(tmp_path):
    tmp_path.chmod(0o755)
    wanted = tmp_path / "wanted"
    wanted.write_text("found it\n")
    wanted.chmod(0o644)
    for folder in tmp_path.parents:
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    command = ("--", "cat", str(wanted))
    assert kavach("run", "--policy", "strict", *command).returncode == 1
    learned = kavach("policy", "learn", "--policy", "strict", *command)
    assert learned.returncode == 0, learned.stderr
    profile = tmp_path / "learned.toml"
    profile.write_bytes(learned.stdout)
    done = kavach("run", "--policy", str(profile), *command)
    assert (done.returncode, done.stdout) == (0, b"found it\n")
    assert str(wanted).encode() in learned.stdout


def test_bench_gives_ratios_beside_subprocess():
    rows = {row["case"]: row for row in report("bench", "--runs", "1", "--json")["rows"]}
    assert rows["subprocess.run"]["beside_subprocess"] == 1.0
    assert rows["create, exec, destroy"]["beside_subprocess"] > 1.0
    assert {"warm exec", "exec in a standing sandbox", "kavach run -- true"} <= set(rows)
    assert all(row["ms"] > 0 for row in rows.values())
