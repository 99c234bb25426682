"""Parts of policy_node: its policy, its robots with their topics, and its lifecycle."""
