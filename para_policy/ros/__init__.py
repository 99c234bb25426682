"""ROS 2 nodes. The only package that imports rclpy; everything below it runs without ROS.

`policy_node` is planning with topics (its parts: `serving`), `chunk_executor` is execution with topics
(its parts: `playing`). Both stand on `parameters`, `messages` and `graph`; `bags` and `doctor` are tools
beside them, which no node imports.
"""
