import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from services.config.load import load_verifier
from services.config.verifier import GraderLimits, VerifierConfig
from services.errors import InputError
from services.verifier_access import TOKENS_VARIABLE
from tests.verifier.running import running

ROOT = Path(__file__).parents[2]


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}.*in use.*verifier\.port"), running(port=port):
            pass


def test_a_host_that_is_not_of_this_machine_is_named() -> None:
    with pytest.raises(InputError, match=r"192\.0\.2\.1:0.*verifier\.host"), running(host="192.0.2.1"):
        pass


def test_stopping_waits_for_the_answers_that_are_owed() -> None:
    with running(item_deadline_s=5.0) as verifier:
        with httpx.Client(timeout=30) as client:
            item = {"id": "a", "grader": "odd", "response": "sleep 0.6", "reference": "sleep 0.6"}
            stopping = threading.Timer(0.3, verifier.stop)
            stopping.start()
            response = client.post(f"{verifier.url}/v1/score", json={"items": [item]})
            stopping.join()
        assert response.json()["results"][0]["verdict"] == "correct"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{verifier.url}/healthz")


def test_the_service_imports_nothing_heavy() -> None:
    program = """
import sys
import verifier.service, verifier.__main__
print({"torch", "vllm", "transformers", "deepspeed", "math_verify", "sympy"} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "set()"


def test_a_grader_process_imports_next_to_nothing() -> None:
    program = """
import sys, verifier.pool.fork_server
print({"numpy", "torch", "sympy", "fastapi", "prometheus_client", "asyncio"} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "set()"


def test_the_command_serves_alone_and_ends_on_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "verifier", "--services-folder", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        if "grader code cannot be used" in line:  # a machine without a sandbox
            line = process.stderr.readline()
        if "scoring on http://127.0.0.1:" not in line:
            process.kill()  # else leaving the block would wait for it
            pytest.fail(line)
        assert (tmp_path / "verifier.json").is_file()
        process.terminate()
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_the_command_refuses_a_port_out_of_range() -> None:
    command = [sys.executable, "-m", "verifier", "--port", "70000"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 2
    assert "verifier.port = 70000" in result.stderr


def test_code_has_as_long_as_its_sandbox_may_take_unless_the_settings_say_otherwise() -> None:
    settings = VerifierConfig.model_validate(
        {"item_deadline_s": 2.0, "sandbox": {"type": "bubblewrap", "max_total_s": 7.0}}
    )
    assert settings.deadline_s("math") == 2.0
    assert settings.deadline_s("code") > 7.0
    given = settings.model_copy(update={"limits": {"code": GraderLimits(deadline_s=3.0)}})
    assert given.deadline_s("code") == 3.0


def test_the_service_alone_takes_its_settings_from_a_file_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "scoring.toml"
    file.write_text("[verifier]\nmax_batch_items = 2\nmax_depth = 9\n")
    settings = load_verifier(file, ["verifier.max_depth=5", "verifier.limits.math.deadline_s=1.5"])
    assert (settings.max_batch_items, settings.max_depth, settings.deadline_s("math")) == (2, 5, 1.5)
    for text, says in (
        ("[verifier]\nmax_dept = 9\n", 'did you mean "max_depth"'),
        ("[learner]\n", "learner: no such key"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=says):
            load_verifier(file)


def test_a_service_alone_with_bearer_tokens_by_a_setting_needs_one() -> None:
    command = [sys.executable, "-m", "verifier", "--set", "verifier.authentication=bearer"]
    environment = {name: value for name, value in os.environ.items() if name != TOKENS_VARIABLE}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=60)
    assert result.returncode == 2
    assert TOKENS_VARIABLE in result.stderr
