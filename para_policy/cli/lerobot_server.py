"""`para-policy lerobot-server`."""

from __future__ import annotations

from dataclasses import dataclass

from para_policy.errors import InputError, MissingPackageError


@dataclass(frozen=True, kw_only=True)
class LeRobotServer:
    """LeRobot's asynchronous policy server, with acceleration and observation histories.

    Robot clients connect as to LeRobot's own: python -m lerobot.async_inference.robot_client."""

    host: str = "localhost"
    """Address to listen on; others than this computer's own can be reached by everybody around."""
    port: int = 8080
    """Port to listen on; 0 for any that is free."""
    fps: int = 30
    """Actions per second, for the time stamps of actions."""
    still: float = 0.0
    """Ask for no new chunk while the robot's state has changed by less, as a norm in its own units."""

    def __call__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise InputError(f"--port is {self.port}; expected 0 to {2**16 - 1}")
        if self.fps < 1:
            raise InputError(f"--fps is {self.fps}; expected 1 or more")
        if not 0 <= self.still < float("inf"):
            raise InputError(f"--still is {self.still:g}; expected 0 or more")
        try:
            from para_policy.lerobot_server.serve import serve
            from para_policy.lerobot_server.server import Server
        except ImportError as error:
            raise MissingPackageError(
                f"lerobot-server needs LeRobot ({error}); pip install 'lerobot[async,diffusion]', and "
                "para_policy beside it"
            ) from error
        serve(Server(self.fps, self.still), self.host, self.port)
