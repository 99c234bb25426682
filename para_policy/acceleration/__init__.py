"""Parallel sampling for policy objects of other projects, and for any network of your own."""

from para_policy.acceleration.own_network import sample as sample
from para_policy.acceleration.patch import Acceleration as Acceleration
from para_policy.acceleration.patch import accelerate as accelerate
