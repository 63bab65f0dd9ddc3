"""Calls over real HTTP, verified by the public ``standardwebhooks`` package: it knows nothing of us."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from standardwebhooks import Webhook, WebhookVerificationError

from engine import EngineConfig, Method, RetryPolicy, Secret, Status, open_engine
from engine.core.lifecycle import ENDED
from tests.support.builders import a_spec
from tests.support.server import running_server
from web.cli import main
from web.receiver import Receiver, open_receiver

pytestmark = pytest.mark.slow

OLD, NEW = (Secret(bytes([number]) * 32) for number in (1, 2))
PAYLOAD = {"text": "ü€😀\u2028</script>", "numbers": [0, -1.5, 2**53], "deep": {"a": [None, True]}}


async def calls_of(config: EngineConfig, receiver: Receiver, **fields: object) -> str:
    """Have a task called until it ends; its id."""
    async with open_engine(config) as engine:
        spec = a_spec(payload=PAYLOAD, **fields)
        task_id = (await engine.submit([spec])).receipts[0].task_id
        with trio.fail_after(20):
            while (await engine.get(task_id)).status not in ENDED:  # noqa: ASYNC110 - nobody signals
                await trio.sleep(0.02)
        assert (await engine.get(task_id)).status is Status.COMPLETED
    return task_id


def verify(receiver: Receiver, task_id: str, secret: Secret) -> int:
    """How many calls verify; raises if one does not."""
    calls = receiver.calls(task_id)
    for call in calls:
        Webhook(secret.reveal()).verify(call.body, dict(call.headers), json_parse=False)
    return len(calls)


@pytest.mark.parametrize("method", list(Method))
async def test_every_attempt_verifies_with_each_of_the_secrets(method: Method) -> None:
    config = EngineConfig(executors=2, signing_secrets=(NEW, OLD))
    policy = RetryPolicy(max_attempts=3, initial_interval_s=0.0)
    async with open_receiver(keep_requests=True) as receiver:
        url = f"{receiver.url}/flaky?fails=2"
        task_id = await calls_of(
            config, receiver, callback_url=url, method=method, retry_policy=policy
        )
        assert verify(receiver, task_id, OLD) == verify(receiver, task_id, NEW) == 3
        with pytest.raises(WebhookVerificationError):
            verify(receiver, task_id, Secret(bytes(32)))


async def test_without_a_secret_there_is_no_signature() -> None:
    async with open_receiver(keep_requests=True) as receiver:
        url = f"{receiver.url}/good"
        task_id = await calls_of(EngineConfig(executors=2), receiver, callback_url=url)
        assert "webhook-signature" not in receiver.calls(task_id)[0].headers


async def test_a_server_signs_with_the_secrets_of_a_file_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"{NEW.reveal()}\n{OLD.reveal()}\n")
    with running_server(tmp_path, env={"RINGBACK_SIGNING_SECRETS": f"@{file}"}) as server:
        said = server.out.read_text() + server.log()
        async with open_receiver(keep_requests=True) as receiver:
            options = ("--payload", '{"a":"ü"}', "--dispatch", "auto")
            submit = ["submit", f"{receiver.url}/good", *options]
            client = CliRunner(env={"RINGBACK_URL": server.url})
            done = await trio.to_thread.run_sync(client.invoke, main, submit)
            assert done.exit_code == 0, done.output
            task_id = done.stdout
            with trio.fail_after(20):
                while not receiver.total:  # noqa: ASYNC110 - it is not ours to signal
                    await trio.sleep(0.02)
            for secret in (OLD, NEW):
                assert verify(receiver, task_id.strip(), secret) == 1
    assert f"callbacks are signed, key id {NEW.key_id} and {OLD.key_id}\n" in said
    assert "whsec_" not in said + server.log()


def test_a_server_without_a_secret_says_how_to_make_one(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        pass
    assert "callbacks are not signed: make a secret with: ringback secrets new" in (
        server.out.read_text()
    )


def test_a_new_secret_is_printed_alone_and_can_be_used_at_once() -> None:
    first, second = (CliRunner().invoke(main, ["secrets", "new"]) for _ in range(2))
    assert first.exit_code == second.exit_code == 0
    secret = Secret.parse(first.stdout.removesuffix("\n"))
    assert len(secret.key) == 32
    assert secret.key_id in first.stderr
    assert first.stdout != second.stdout


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nonsense-s3cr3t", "signing secret 1 must begin with whsec_"),
        (f"{OLD.reveal()}, whsec_s3cr3t!", "signing secret 2 must be base64"),
        (f"{OLD.reveal()} whsec_c2hvcnQtczNjcjN0", "signing secret 2 must hold 24 to 64 bytes"),
        ("@/no/such/file", "cannot read /no/such/file: No such file or directory"),
    ],
)
@pytest.mark.parametrize("way", ["option", "variable"])
def test_wrong_secrets_stop_a_server_before_it_starts_and_do_not_show(
    value: str, said: str, way: str
) -> None:
    option, env = ["--signing-secrets", value], {}
    if way == "variable":
        option, env = [], {"RINGBACK_SIGNING_SECRETS": value}
    result = CliRunner(env=env).invoke(main, ["serve", "--database", "memory:", *option])
    assert result.exit_code == 2
    assert said in result.stderr
    for part in ("s3cr3t", "c2hvcnQtczNjcjN0", OLD.reveal()):
        assert part not in result.output
