"""Planning of action chunks: when, from which observations, with which noise, for which robots. No ROS."""
