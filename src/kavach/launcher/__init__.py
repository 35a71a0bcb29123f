"""From a policy to a running process and back to a raw result: lower, plan, launch, observe, supervise."""
