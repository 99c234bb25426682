"""Observations that a policy meets when it plays in a simulator."""

from para_policy.rollout.record import record as record
