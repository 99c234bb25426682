"""`para-policy lerobot-server`, spoken to by LeRobot's own robot client. Runs where LeRobot is installed."""

from __future__ import annotations

import importlib
import logging
import math
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import grpc
import numpy as np
import pytest
import torch
from lerobot.async_inference import helpers
from lerobot.async_inference.configs import RobotClientConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.utils import populate_queues, prepare_observation_for_inference
from lerobot.transport import services_pb2, services_pb2_grpc

from para_policy.errors import InputError
from para_policy.lerobot_server import serve
from para_policy.lerobot_server.features import check_features
from para_policy.lerobot_server.server import Server
from tests.lerobot_server.conftest import RANGE, save_act, save_dit
from tests.lerobot_server.pointrobot import PointRobot, config

with patch.object(helpers, "get_logger", logging.getLogger):  # else it makes a folder "logs" here
    from lerobot.async_inference.robot_client import RobotClient

pytestmark = pytest.mark.lerobot

TASK = "push the t"


class Context:
    """What gRPC tells of a call."""

    def __init__(self, peer: str = "robot") -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    def abort(self, code: Any, details: str) -> None:
        raise grpc.RpcError(f"{code.name}: {details}")


class Calls:
    """A robot client that is called step by step."""

    def __init__(self, server: Server, folder: Path, peer: str = "robot") -> None:
        self._server, self._context = server, Context(peer)
        self._features = helpers.map_robot_keys_to_lerobot_features(PointRobot(config(folder)))
        server.Ready(services_pb2.Empty(), self._context)

    def load(self, checkpoint: Path, kind: str = "diffusion", actions: int = 8) -> None:
        specs = helpers.RemotePolicyConfig(kind, str(checkpoint), self._features, actions)
        message = services_pb2.PolicySetup(data=pickle.dumps(specs))
        self._server.SendPolicyInstructions(message, self._context)

    def observe(self, step: int, x: float, must_go: bool = False) -> None:
        raw = {"x": x, "y": 0.0, "top": np.zeros((64, 64, 3), np.uint8), "task": TASK}
        self.send(helpers.TimedObservation(time.time(), step, raw, must_go))

    def send(self, observation: Any) -> None:
        part = SimpleNamespace(data=pickle.dumps(observation))
        self._server.SendObservations(iter([part]), self._context)

    def actions(self) -> list[helpers.TimedAction]:
        answer = self._server.GetActions(services_pb2.Empty(), self._context)
        return list(pickle.loads(answer.data)) if answer.data else []


@pytest.fixture
def calls(server: Server, checkpoint: Path, tmp_path: Path) -> Calls:
    made = Calls(server, tmp_path)
    made.load(checkpoint)
    return made


def own_answer(checkpoint: Path, xs: list[float]) -> torch.Tensor:
    """(8, 2) what LeRobot's loop answers to a history, from the seed 0."""
    policy = DiffusionPolicy.from_pretrained(checkpoint).eval()
    states = torch.tensor([[x / RANGE, 0.0] for x in xs])
    batch = {
        "observation.state": states[None],
        "observation.images.top": torch.zeros(1, len(xs), 3, 64, 64),
    }
    torch.manual_seed(0)
    return policy.predict_action_chunk(batch)[0] * RANGE


@pytest.mark.parametrize(
    ("observed", "history"),
    [
        ([(0, 50.0)], [50.0, 50.0]),
        ([(0, 50.0), (1, 60.0)], [50.0, 60.0]),
        ([(0, 50.0), (4, 60.0), (5, 70.0)], [60.0, 70.0]),
        ([(0, 50.0), (4, 60.0)], [60.0, 60.0]),
    ],
)
def test_policy_gets_the_steps_that_it_looks_at(
    calls: Calls, checkpoint: Path, observed: list[tuple[int, float]], history: list[float]
) -> None:
    for step, x in observed:
        calls.observe(step, x, must_go=True)
    torch.manual_seed(0)
    chunk = calls.actions()
    assert [action.get_timestep() for action in chunk] == [observed[-1][0] + i for i in range(8)]
    found = torch.stack([action.get_action() for action in chunk])
    assert (found - own_answer(checkpoint, history)).abs().max() < 2e-2 * RANGE
    # Another history gives another answer, so that the comparison says something.
    assert (found - own_answer(checkpoint, [-90.0, -90.0])).abs().max() > 5e-2 * RANGE


def test_each_observation_is_preprocessed_once_the_newest_last(
    calls: Calls, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess, seen = server.preprocessor, []

    def counted(observation: dict[str, Any]) -> Any:
        seen.append(float(observation["observation.state"][0, 0]))
        return preprocess(observation)

    monkeypatch.setattr(server, "preprocessor", counted)
    for step, x in ((0, 50.0), (1, 60.0), (4, 70.0)):
        calls.observe(step, x, must_go=True)
        if step:
            assert calls.actions()
    assert seen == [50.0, 60.0, 70.0]


def told_answer(checkpoint: Path, xs: list[float], task: str) -> torch.Tensor:
    """(4, 2) what LeRobot's loop answers to a history and a task, from the seed 0."""
    from lerobot.policies.multi_task_dit import MultiTaskDiTPolicy

    policy = MultiTaskDiTPolicy.from_pretrained(checkpoint).eval()
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(checkpoint))
    for x in xs:
        seen = {
            "observation.state": torch.tensor([[x, 0.0]]),
            "observation.images.top": torch.zeros(1, 3, 64, 64),
            "task": task,
        }
        batch = policy._prepare_batch({k: v for k, v in before(seen).items() if k != "action"})
        populate_queues(policy._queues, batch)
    torch.manual_seed(0)
    chunk: torch.Tensor = after(policy.predict_action_chunk(batch))
    return chunk[0]


def test_multi_task_dit_gets_its_words_and_its_history(server: Server, tmp_path: Path) -> None:
    checkpoint = save_dit(tmp_path / "dit")
    calls = Calls(server, tmp_path)
    calls.load(checkpoint, "multi_task_dit", actions=4)
    for step, x in ((0, 50.0), (1, -60.0)):
        calls.observe(step, x, must_go=True)
    torch.manual_seed(0)
    found = torch.stack([action.get_action() for action in calls.actions()])
    assert (found - told_answer(checkpoint, [50.0, -60.0], TASK)).abs().max() < 2e-2 * RANGE
    for other in (([50.0, -60.0], "go home"), ([-60.0, -60.0], TASK)):
        assert (found - told_answer(checkpoint, *other)).abs().max() > 5e-2 * RANGE
    assert len(server.accounts) == 1


def test_a_policy_proves_itself_at_the_first_observation(calls: Calls, server: Server) -> None:
    """So small a policy need not be faster; it must be compared."""
    calls.observe(0, 1.0, must_go=True)
    assert calls.actions()
    (account,) = server.accounts
    assert account.proof is not None
    assert account.proof.error <= account.proof.allowed
    assert server.counts.chunks == 1


def test_an_observation_waits_for_those_before_it_unless_the_robot_has_no_actions(
    calls: Calls,
) -> None:
    calls.observe(0, 1.0, must_go=True)
    assert len(calls.actions()) == 8
    calls.observe(5, 1.0)
    assert calls.actions() == []
    calls.observe(6, 1.0)
    assert calls.actions()[0].get_timestep() == 6
    calls.observe(9, 1.0, must_go=True)
    assert calls.actions()[0].get_timestep() == 9


def test_a_step_is_planned_for_once(calls: Calls) -> None:
    for step in (0, 1):
        calls.observe(step, 1.0, must_go=not step)
        assert calls.actions()
    calls.observe(1, 5.0)
    assert calls.actions() == []


@pytest.mark.parametrize(("still", "planned"), [(0.0, True), (1.0, False), (0.1, True)])
def test_small_moves_are_planned_for(
    still: float, planned: bool, checkpoint: Path, tmp_path: Path
) -> None:
    calls = Calls(Server(still=still), tmp_path)
    calls.load(checkpoint)
    calls.observe(0, 1.0, must_go=True)
    calls.actions()
    calls.observe(1, 1.3)
    assert bool(calls.actions()) == planned


def test_errors_are_one_line_and_the_next_call_works(
    calls: Calls, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: calls.send({"x": 1.0}), "expected a TimedObservation"),
        (lambda: calls.send(helpers.RemotePolicyConfig("a", "b", {}, 1)), "expected a TimedObs"),
        (lambda: calls.load(checkpoint, "chess"), "chess not supported"),
        (lambda: calls.load(tmp_path / "nothing"), "nothing"),
    ]
    for call, message in refused:
        with pytest.raises(grpc.RpcError, match=message):
            call()
        error = capsys.readouterr().err
        assert error.startswith("error: robot: ")
        assert error.count("\n") == 1
    calls.observe(0, 1.0, must_go=True)
    with pytest.raises(grpc.RpcError, match="no policy is loaded"):
        calls.actions()
    calls.load(checkpoint)
    calls.observe(0, 1.0, must_go=True)
    assert calls.actions()


def test_an_observation_that_failed_may_come_again(calls: Calls) -> None:
    calls.send(helpers.TimedObservation(time.time(), 0, {"x": 1.0}, must_go=True))
    with pytest.raises(grpc.RpcError, match="INTERNAL"):
        calls.actions()
    for _ in range(2):
        calls.observe(0, 1.0)
    assert calls.actions()


def test_cameras_must_be_those_of_the_policy(
    server: Server, tmp_path: Path, checkpoint: Path
) -> None:
    calls = Calls(server, tmp_path)
    calls._features["observation.images.side"] = calls._features.pop("observation.images.top")
    with pytest.raises(grpc.RpcError, match=r"observation.images.top'\] are missing"):
        calls.load(checkpoint)


def test_a_chunk_of_one_action_would_not_move_the_robot(calls: Calls, checkpoint: Path) -> None:
    calls.load(checkpoint, actions=1)
    calls.observe(0, 1.0, must_go=True)
    with pytest.raises(grpc.RpcError, match="set actions_per_chunk"):
        calls.actions()


def test_a_client_that_connects_takes_over(calls: Calls, server: Server, tmp_path: Path) -> None:
    Calls(server, tmp_path, peer="another")
    with pytest.raises(grpc.RpcError, match="another robot client has connected"):
        calls.observe(0, 1.0)


def test_a_client_that_takes_over_gets_no_chunk_of_the_one_before(
    calls: Calls, server: Server, checkpoint: Path, tmp_path: Path
) -> None:
    class Overtaken(Queue[Any]):
        """The other client connects between an observation and its chunk."""

        def get(self, *args: Any, **kwargs: Any) -> Any:
            seen = super().get(*args, **kwargs)
            others.append(Calls(server, tmp_path, peer="another"))
            others[0].load(checkpoint)
            return seen

    others: list[Calls] = []
    server.observation_queue = Overtaken(maxsize=1)
    calls.observe(100, 1.0, must_go=True)
    with pytest.raises(grpc.RpcError, match="another robot client has connected"):
        calls.actions()
    for step in (0, 1):
        others[0].observe(step, 1.0)
    assert [action.get_timestep() for action in others[0].actions()][:1] == [1]


def test_an_observation_on_its_way_while_another_client_connects_is_not_its_own(
    calls: Calls, server: Server, checkpoint: Path, tmp_path: Path
) -> None:
    raw = {"x": 1.0, "y": 0.0, "top": np.zeros((64, 64, 3), np.uint8), "task": TASK}
    message = pickle.dumps(helpers.TimedObservation(time.time(), 100, raw, True))
    others: list[Calls] = []

    def slowly() -> Iterator[Any]:
        yield SimpleNamespace(data=message[:1000])
        others.append(Calls(server, tmp_path, peer="another"))
        others[0].load(checkpoint)
        yield SimpleNamespace(data=message[1000:])

    with pytest.raises(grpc.RpcError, match="another robot client has connected"):
        server.SendObservations(slowly(), Context())
    assert others[0].actions() == []


def test_a_chunk_that_was_lost_on_its_way_is_planned_again(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LeRobot's client says only once that it has no actions left."""
    calls.observe(0, 1.0, must_go=True)
    assert calls.actions()
    calls.observe(0, 1.0)
    assert calls.actions() == []
    monkeypatch.setattr("para_policy.lerobot_server.server._LOST_S", 0.0)
    calls.observe(0, 1.0)
    assert calls.actions()[0].get_timestep() == 0


def test_a_robot_that_stands_after_a_failure_is_planned_for(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(still=1.0)
    calls = Calls(server, tmp_path)
    calls.load(checkpoint)
    with monkeypatch.context() as failing:
        failing.setattr(server.policy, "predict_action_chunk", lambda batch: 1 / 0)
        calls.observe(1, 9.0, must_go=True)
        with pytest.raises(grpc.RpcError, match="division by zero"):
            calls.actions()
    for _ in range(2):
        calls.observe(1, 9.0)
    assert calls.actions()


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_what_is_not_finite_moves_no_robot(calls: Calls, server: Server, bad: float) -> None:
    with pytest.raises(grpc.RpcError, match="'x' holds NaN or infinity"):
        calls.observe(0, bad, must_go=True)
    assert calls.actions() == []
    calls.observe(0, 1.0, must_go=True)
    assert calls.actions()
    for weights in server.policy.parameters():
        weights.data.fill_(bad)
    calls.observe(1, 1.0)
    with pytest.raises(grpc.RpcError, match="the policy answers with NaN"):
        calls.actions()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("observation.state", (1,)),  # which LeRobot would take for both numbers
        ("observation.state", (3,)),
        ("observation.images.top", (64, 64, 1)),  # and this one for all three colours
    ],
)
def test_inputs_of_other_sizes_are_refused(
    server: Server, tmp_path: Path, checkpoint: Path, name: str, shape: tuple[int, ...]
) -> None:
    calls = Calls(server, tmp_path)
    calls._features[name]["shape"] = shape
    with pytest.raises(
        grpc.RpcError, match=rf"{name} of shape \[{shape[0]}.*trained with this robot"
    ):
        calls.load(checkpoint)


def test_a_stretched_image_is_told(
    server: Server, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = Calls(server, tmp_path)
    for size, told in (((128, 128, 3), False), ((72, 128, 3), True)):
        calls._features["observation.images.top"]["shape"] = size
        calls.load(checkpoint)
        assert ("72 x 128 pixels, and is stretched" in capsys.readouterr().err) == told


@pytest.fixture(params=["smolvla.SmolVLAConfig", "pi0.PI0Config", "pi05.PI05Config"])
def fitting(request: pytest.FixtureRequest) -> Any:
    """Configuration, with the cameras of the checkpoint that the training began with."""
    module, name = request.param.split(".")
    made = getattr(
        importlib.import_module(f"lerobot.policies.{module}.configuration_{module}"), name
    )
    return made(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
            "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 256, 256)),
            "observation.images.wrist": PolicyFeature(FeatureType.VISUAL, (3, 256, 256)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
    )


def test_policies_that_fit_images_themselves_get_them_as_they_are(
    server: Server, tmp_path: Path, fitting: Any
) -> None:
    """As in LeRobot's training and its programs of one process; its own server stretches them."""
    features = Calls(server, tmp_path)._features
    features["observation.images.top"]["shape"] = (48, 64, 3)
    server.policy, server.lerobot_features = SimpleNamespace(config=fitting), features
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    raw = {"x": 1.0, "y": 0.0, "top": image}
    sizes = server.policy_image_features
    found = helpers.raw_observation_to_observation(dict(raw), features, sizes)
    own = prepare_observation_for_inference({"observation.images.top": image}, torch.device("cpu"))
    name = "observation.images.top"
    torch.testing.assert_close(found[name], own[name])


def test_policies_that_fit_images_themselves_do_without_cameras(
    server: Server, tmp_path: Path, fitting: Any
) -> None:
    features = Calls(server, tmp_path)._features
    features["observation.images.top"]["shape"] = (48, 64, 3)
    specs = helpers.RemotePolicyConfig("smolvla", "", features, 8)
    assert check_features(specs, fitting) == [
        "no camera gives observation.images.wrist; the policy goes without"
    ]
    features["observation.images.top"]["shape"] = (48, 64, 1)
    with pytest.raises(InputError, match="trained with this robot"):
        check_features(specs, fitting)
    del features["observation.images.top"]
    with pytest.raises(InputError, match=r"top', 'observation.images.wrist'\] are missing"):
        check_features(specs, fitting)


def test_other_policies_are_served_as_they_are(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls(server, tmp_path)
    calls.load(save_act(tmp_path / "act"), "act")
    assert "ACTPolicy is left as it is" in caplog.text
    assert server.accounts == []
    calls.observe(0, 1.0, must_go=True)
    assert len(calls.actions()) == 8


@contextmanager
def command(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `para-policy lerobot-server` in `folder`, and its address."""
    started = [sys.executable, "-m", "para_policy", "lerobot-server", "--port", "0", *options]
    with subprocess.Popen(
        started, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "localhost:" in line, process.communicate()[1]
            yield process, line.split(" on ")[1].split(";")[0]
        finally:
            process.kill()


def drive(address: str, checkpoint: Path, folder: Path, steps: int) -> PointRobot:
    """A robot that LeRobot's client drives for so many steps, or 30 s."""
    client = RobotClient(
        RobotClientConfig(
            policy_type="diffusion",
            pretrained_name_or_path=str(checkpoint),
            robot=config(folder),
            actions_per_chunk=8,
            server_address=address,
        )
    )
    assert client.start()
    robot: PointRobot = client.robot

    def watch() -> None:
        end = time.monotonic() + 30
        while len(robot.path) < steps and time.monotonic() < end:
            time.sleep(0.05)
        client.shutdown_event.set()

    threads = [threading.Thread(target=work) for work in (client.receive_actions, watch)]
    for thread in threads:
        thread.start()
    client.control_loop(task="")
    for thread in threads:
        thread.join()
    client.stop()
    return robot


def test_lerobots_own_client_drives_its_robot(checkpoint: Path, tmp_path: Path) -> None:
    with command(tmp_path) as (process, address):
        robots = [drive(address, checkpoint, tmp_path, steps) for steps in (60, 10)]
        assert len(robots[0].path) >= 60
        assert len(robots[1].path) >= 10
        assert np.abs(robots[0].path).max() <= 1.01 * RANGE
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    # Which of them says how long it took both ways.
    assert re.search(r"DiffusionPolicy (is accelerated: .* ms a chunk|is left as it was: )", err)
    assert err.endswith("stopped by SIGTERM\n")
    assert "Traceback" not in err
    assert re.fullmatch(r"chunks: \d+, \d+ ms each", out.splitlines()[-1])
    assert not (tmp_path / "logs").exists()


SENDS_HALF = """
import sys, time, grpc
from lerobot.transport import services_pb2, services_pb2_grpc

def parts():
    yield services_pb2.Observation(data=b"half")
    print("sent", flush=True)
    time.sleep(600)

stub = services_pb2_grpc.AsyncInferenceStub(grpc.insecure_channel(sys.argv[1]))
stub.SendObservations(parts())
"""


@pytest.mark.slow
def test_robots_that_are_out_of_reach_do_not_hold_the_server(tmp_path: Path) -> None:
    with command(tmp_path) as (_, address), ExitStack() as frozen:
        for _ in range(serve._WORKERS):
            started = [sys.executable, "-c", SENDS_HALF, address]
            client = frozen.enter_context(
                subprocess.Popen(started, stdout=subprocess.PIPE, text=True)
            )
            frozen.callback(client.kill)
            assert client.stdout is not None
            client.stdout.readline()
            client.send_signal(signal.SIGSTOP)
        stub = services_pb2_grpc.AsyncInferenceStub(grpc.insecure_channel(address))
        stub.Ready(services_pb2.Empty(), timeout=40)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_one_line(number: signal.Signals, tmp_path: Path) -> None:
    with command(tmp_path) as (process, _):
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, f"stopped by {number.name}\n")
    assert out == "chunks: 0\n"


def test_a_port_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from para_policy.cli.main import main

    service = grpc.server(None, options=[("grpc.so_reuseport", 0)])
    port = service.add_insecure_port("localhost:0")
    service.start()
    try:
        assert main(["lerobot-server", "--port", str(port)]) == 2
    finally:
        service.stop(None)
    assert f"cannot listen on localhost:{port}" in capsys.readouterr().err
