"""PushT over ROS 2: the simulator as a node, and closed loops of real processes."""
