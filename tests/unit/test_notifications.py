from __future__ import annotations

import email
import html
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.support.webhook import SECRET, webhook
from trainflow.errors import DeliveryRefused, EngineError
from trainflow.messages.notice import Event
from trainflow.notifications import AppriseService, Command, Webhook, targets, text
from trainflow.settings.model import NotificationSettings

# one of the modules that Apprise loads
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

MESSAGE = {"event": "stopped", "sentence": "Grüße"}


def test_webhook_gets_post_with_json_body() -> None:
    with webhook() as receiver:
        Webhook(receiver.url).tell(MESSAGE)

    assert receiver.messages == [MESSAGE]
    assert receiver.types == ["application/json"]


@pytest.mark.parametrize("code", [400, 404, 429, 500, 503])
def test_webhook_that_answers_something_else_has_not_taken_it(code: int) -> None:
    with webhook() as receiver:
        receiver.refuse = [code]
        with pytest.raises(DeliveryRefused, match=f"the webhook at 127.0.0.1 answered {code}"):
            Webhook(receiver.url).tell(MESSAGE)

    assert receiver.messages == []


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1/{SECRET}",
        f"http://no-such-host.invalid/{SECRET}",
        f"http://127.0.0.1:bad/{SECRET}",
        f"nonsense/{SECRET}",
        f"gopher://x/{SECRET}",
        f"http://127.0.0.1:1/{SECRET} with space",
        f"http://[::1/{SECRET}",
    ],
)
def test_target_failure_is_one_line_without_url(url: str) -> None:
    with pytest.raises(DeliveryRefused) as caught:
        Webhook(url, timeout_seconds=2).tell(MESSAGE)

    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("the webhook at ")


def test_command_reads_it_from_its_standard_input_in_project(tmp_path: Path) -> None:
    program = "import pathlib, sys; pathlib.Path('told.json').write_text(sys.stdin.read())"

    Command([sys.executable, "-c", program], tmp_path).tell(MESSAGE)

    assert json.loads((tmp_path / "told.json").read_text()) == MESSAGE


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], r"ended with 3$"),
        ([sys.executable, "-c", "import sys; sys.exit('no room, password=hunter2')"], r"ended with 1: no room"),
        (["/no/such/program", "secret-argument"], r"the command program cannot be started: No such file"),
    ],
)
def test_command_that_fails_says_why(tmp_path: Path, argv: list[str], told: str) -> None:
    with pytest.raises(DeliveryRefused, match=told) as caught:
        Command(argv, tmp_path).tell(MESSAGE)

    assert "hunter2" not in str(caught.value)
    assert "secret-argument" not in str(caught.value)


def test_command_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(DeliveryRefused, match=r"did not end within 0\.2 s"):
        Command([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, timeout_seconds=0.2).tell(MESSAGE)


def test_command_that_leaves_a_process_behind_has_ended(tmp_path: Path) -> None:
    """Which holds what it was started with."""
    os.mkfifo(tmp_path / "goes on")
    Command(["sh", "-c", "cat 'goes on' & exit 0"], tmp_path).tell(MESSAGE)
    (tmp_path / "goes on").write_text("enough")


def test_command_that_hangs_is_ended_with_what_it_has_begun(tmp_path: Path) -> None:
    for name in ("never", "held"):
        os.mkfifo(tmp_path / name)
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(held, True)
    with pytest.raises(DeliveryRefused, match="did not end within"):
        Command(["sh", "-c", "exec 3> held; cat never & wait"], tmp_path, timeout_seconds=0.2).tell(MESSAGE)
    assert os.read(held, 1) == b""  # once none of them holds it any more
    os.close(held)


def test_targets_follow_settings(tmp_path: Path) -> None:
    assert targets(NotificationSettings(), tmp_path) == []
    service = "json://receiver.example/s3cr3t"
    settings = NotificationSettings(webhook="http://x/", command=["true"], apprise=[service, service])
    assert [each.name.partition("-")[0] for each in targets(settings, tmp_path)] == ["webhook", "command", "apprise"]


def test_services_without_apprise_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EngineError, match="pip install 'trainflow"):
        targets(NotificationSettings(apprise=["json://x"]), tmp_path)


TOLD = {
    **MESSAGE,
    "pipeline": "flights",
    "stage": "main",
    "branch": "lower-rate",
    "project": "models",
    "event": "never_catches_up",
}


def test_service_gets_title_and_sentence() -> None:
    with webhook() as receiver:
        AppriseService(receiver.url.replace("http://", "json://")).tell(TOLD)
    (message,) = receiver.messages
    assert (message["title"], message["message"], message["type"]) == (
        "flights/lower-rate: never catches up (models)",
        "Grüße",
        "warning",
    )


@pytest.mark.parametrize("said", ["p%40ss%2Fword", "p@ss/word", "p%40ss/word"])
def test_secret_of_a_service_is_masked_however_it_is_written(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import apprise

    def refuse(_service: object, **_words: Any) -> bool:
        logging.getLogger("apprise").warning("The server refused user:%s", said)
        return False

    monkeypatch.setattr(apprise.Apprise, "notify", refuse)
    with pytest.raises(DeliveryRefused) as refused:
        AppriseService("json://user:p%40ss%2Fword@localhost").tell(TOLD)
    assert "word" not in str(refused.value)
    assert "***" in str(refused.value)


@pytest.mark.parametrize("url", ["json://127.0.0.1:1/", f"nosuch://user:{SECRET}@host/", "mailto://"])
def test_service_that_does_not_take_it_is_one_line_without_secrets(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DeliveryRefused, match="Apprise") as caught:
        AppriseService(url + SECRET).tell(TOLD)
    assert SECRET not in str(caught.value) + caplog.text
    assert "\n" not in str(caught.value)


def test_service_that_refuses_says_what_it_answered() -> None:
    with webhook() as receiver:
        receiver.refuse = [503]
        with pytest.raises(DeliveryRefused, match="503") as caught:
            AppriseService(receiver.url.replace("http://", "json://")).tell(TOLD)
    assert SECRET not in str(caught.value)


#: what services take for markup, and where each says it: Telegram and mail refuse or drop what looks like HTML
ODD = "gate 'auc < 0.7 & <b>x</b>' of pre_train: *auc* was `0.6`\nin the second line"
PAGE = "http://127.0.0.1:8080/chains/flights/main/main"
SERVICES = {
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general": ODD.replace("&", "&amp;")
    .replace("<", "&lt;")
    .replace(">", "&gt;"),
    "feishu://abcdefgh12345": ODD,
    "dingtalk://abcdefgh12345": ODD,
    "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js": ODD,
    "tgram://123456789:abcdefg_hijklmnop/12315544/": ODD.replace("&", "&amp;")
    .replace("<", "&lt;")
    .replace(">", "&gt;")
    .replace("\n", "\r\n"),
    "mailto://user:pass@example.com?to=a@example.com": ODD,
}


def _said(url: str, message: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a service is sent: the body of its request, or the text of the mail."""
    sent: list[str] = []

    def post(_url: str, *_: Any, **given: Any) -> Any:
        data = given.get("data") or given.get("json")
        sent.append(data if isinstance(data, str) else data.decode() if isinstance(data, bytes) else json.dumps(data))
        return SimpleNamespace(status_code=200, content=b"ok", text='{"ok": true}', headers={})

    def sendmail(_sender: str, _to: list[str], message: str, *_: Any, **__: Any) -> dict[str, str]:
        (part,) = [each for each in email.message_from_string(message).walk() if not each.is_multipart()]
        assert part.get_content_type() == "text/plain"
        sent.append(json.dumps(part.get_payload(decode=True).decode()))  # type: ignore[union-attr]
        return {}

    server = MagicMock(sendmail=sendmail)
    monkeypatch.setattr("requests.post", post)
    monkeypatch.setattr("requests.request", lambda _method, *given, **options: post(*given, **options))
    monkeypatch.setattr("smtplib.SMTP", lambda *_, **__: server)
    monkeypatch.setattr("smtplib.SMTP_SSL", lambda *_, **__: server)
    AppriseService(url).tell(message)
    (text,) = sent
    return text


@pytest.mark.parametrize("url", sorted(SERVICES))
def test_service_shows_the_sentence_as_it_is_and_where_to_look(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {**TOLD, "sentence": ODD, "page": PAGE}
    said = _said(url, told, monkeypatch)
    assert json.dumps(SERVICES[url], ensure_ascii=False)[1:-1] in said.replace("\\u2026", "…")
    assert PAGE in said
    long = _said(url, {**told, "sentence": "x" * 10_000}, monkeypatch)
    assert len(long) < 2_000


CALLS = ["@everyone", "@HERE", "@channel", "@all", "<@123>", "<@&123>", "<!channel>", "<#123>", '<at user_id="all">']


@pytest.mark.parametrize("url", sorted(SERVICES))
def test_service_is_sent_no_mention(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _said(url, {**TOLD, "sentence": " ".join(CALLS), "project": "@everyone"}, monkeypatch)
    plain = html.unescape(said.replace("\\u200b", "\u200b").replace('\\"', '"'))
    assert [call for call in CALLS if call in plain] == []
    assert all(call in plain.replace("\u200b", "") for call in CALLS)


def test_service_shows_what_is_no_mention_as_it_is() -> None:
    sentence = "mail@here.example.com? 'a < b', me@example.com, @hereditary, <b>"
    assert text({**TOLD, "sentence": sentence}).replace("\u200b", "") == sentence
    assert text({**TOLD, "sentence": "me@example.com, @hereditary, a < b, <b>"}).isascii()


@pytest.mark.parametrize("event", sorted(Event))
def test_each_event_has_a_title_and_a_kind(event: Event) -> None:
    with webhook() as receiver:
        AppriseService(receiver.url.replace("http://", "json://")).tell({**TOLD, "event": event.value})
    (message,) = receiver.messages
    assert message["title"] == f"flights/lower-rate: {event.value.replace('_', ' ')} (models)"
    assert message["type"] in ("info", "success", "warning", "failure")
