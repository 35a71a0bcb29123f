"""From policy to policy, pure: presets, profile files, narrowing, strength, seccomp profiles."""
