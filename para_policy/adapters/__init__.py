"""Parallel sampling for policy objects of other projects, and for any network of your own."""

from para_policy.adapters.own_network import sample as sample
from para_policy.adapters.patch import Acceleration as Acceleration
from para_policy.adapters.patch import accelerate as accelerate
