"""LeRobot's asynchronous policy server with acceleration: the one package that imports LeRobot."""
