"""Parts of policy_node: the policy, its robots, their topics, and the lifecycle."""
