"""ROS 2 nodes. The only package that imports rclpy; everything below it runs without ROS."""
