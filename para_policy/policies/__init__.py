"""Policies: networks, normalisation, and the path from observation to actions."""

from para_policy.policies.config import PolicyConfig as PolicyConfig
from para_policy.policies.policy import DiffusionPolicy as DiffusionPolicy
