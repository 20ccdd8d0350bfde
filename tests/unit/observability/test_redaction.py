from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.errors import InputError
from trainflow.observability.redaction import (
    MASK,
    check_no_secrets,
    is_secret_key,
    may_hold_secrets,
    presentable,
    redact,
    redact_text,
    secret_paths,
    secret_values,
    texts_of,
)

#: made up, but of the shape that the service gives them
SHAPES = {
    "GitHub": "ghp_" + "a1B2" * 9,
    "GitHub, fine-grained": "github_pat_" + "a1B2c3" * 5,
    "GitLab": "glpat-" + "a1B2c" * 4,
    "AWS access key": "AKIA" + "ABCD" * 4,
    "AWS, temporary": "ASIA" + "ABCD" * 4,
    "Google API key": "AIza" + "a1B2_" * 7,
    "Slack bot": "xoxb-" + "1234567890-abcdef",
    "Slack webhook": "hooks.slack.com/services/" + "T000/B000/XXXX",
    "Hugging Face": "hf_" + "abCD" * 9,
    "Databricks": "dapi" + "0a" * 16,
    "model API": "sk-proj-" + "a1B2" * 6,
    "JSON Web Token": "eyJhbGciOiJI" + ".eyJzdWIiOiIx." + "c2lnbmF0dXJl",
    "private key": "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIE+/=\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize(
    "key",
    [
        "password", "db_password", "DB_PASSWORD", "secret", "client_secret", "aws_secret_access_key", "apiKey",
        "api_key", "API-KEY", "accessKey", "accountKey", "token", "hf_token", "authToken", "sas_token",
        "storage_options", "connection_string", "Authorization", "private.key",
        "passphrase", "private_key", "dsn",
    ],
)  # fmt: skip
def test_these_keys_hold_secrets(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "max_tokens", "tokenizer", "pad_token", "primary_key", "sort_key", "key_columns", "keys", "learning_rate",
        "tokens_per_batch", "secretary_features", "passes", "", "42", "monkey", "key",
    ],
)  # fmt: skip
def test_these_keys_are_parameters(key: str) -> None:
    assert not is_secret_key(key)


def test_redacts_by_key_at_any_depth_and_keeps_rest() -> None:
    params = {
        "lr": 0.1,
        "tokenizer": "bpe",
        "sources": [{"url": "s3://bucket/x", "storage_options": {"endpoint": "http://minio", "anything": "geheim"}}],
        "db": {"password": "geheim", "host": "h", "token": None},
    }
    assert redact(params) == {
        "lr": 0.1,
        "tokenizer": "bpe",
        "sources": [{"url": "s3://bucket/x", "storage_options": MASK}],
        "db": {"password": MASK, "host": "h", "token": None},
    }
    assert params["db"]["password"] == "geheim"  # type: ignore[index,call-overload]  # a copy, not in place


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql+psycopg://me:geheim@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("redis://:geheim@cache", "redis://:***@cache"),
        ("mysql://me:ge:h@eim@db/x", "mysql://me:***@db/x"),
        ("two http://a:b@c and http://d:e@f", "two http://a:***@c and http://d:***@f"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("https://x/y?token=geheim&page=2", "https://x/y?token=***&page=2"),
        ("AWS_SECRET_ACCESS_KEY=geheim make", "AWS_SECRET_ACCESS_KEY=*** make"),
        ("{'password': 'geheim', 'user': 'me'}", "{'password': '***', 'user': 'me'}"),
        ("Authorization: Bearer abcdefgh123", "Authorization: Bearer ***"),
        ("key: the partition 2013-01-01 is missing", "key: the partition 2013-01-01 is missing"),
        ("rows=10 max_tokens=5 primary_key=id", "rows=10 max_tokens=5 primary_key=id"),
    ],
)
def test_redacts_inside_text(text: str, redacted: str) -> None:
    assert redact_text(text) == redacted


@pytest.mark.parametrize("secret", SHAPES.values(), ids=SHAPES)
def test_redact_text_known_token_is_masked_anywhere(secret: str) -> None:
    for text in (secret, f"refused: {secret}", f"('{secret}', 3)", f"before\n{secret}\nafter"):
        assert redact_text(text) == text.replace(secret, MASK)
    assert redact({"note": secret}) == {"note": MASK}
    assert may_hold_secrets(secret.encode())


@pytest.mark.parametrize(
    "text",
    [
        "asia-east1",
        "task-learning-rate-of-the-model-2024",
        "xoxo",
        "half_precision",
        "0hf_" + "a" * 40,
        "eyJ.eyJ.x",
        "npm_",
    ],
)
def test_redact_text_word_that_only_begins_like_token_stays(text: str) -> None:
    assert redact_text(text) == text


def test_redact_text_values_to_hide_are_masked_longest_first() -> None:
    assert redact_text("hunter22 hunter2 on", ("hunter2", "hunter22", "on")) == f"{MASK} {MASK} on"
    assert list(texts_of({"a": "x1", "b": {"c": ["y2", 3]}, "url": "s3://bucket"})) == ["x1", "y2"]


def test_redact_flag_and_missing_value_of_secret_key_stay() -> None:
    assert redact({"use_password": True, "token": None, "password": 1234}) == {
        "use_password": True,
        "token": None,
        "password": MASK,
    }


def test_secret_paths_name_each_place() -> None:
    value = {"params": {"hf_token": "x", "lr": 0.1}, "urls": ["s3://b", "http://u:pw@h"], "params.api_key": "k"}
    assert list(secret_paths(value)) == ["params.hf_token", "urls.1", "params.api_key"]
    with pytest.raises(InputError, match=r"^--set: params\.hf_token, urls\.1, params\.api_key look like a secret"):
        check_no_secrets(value, "--set")
    check_no_secrets({"params.lr": "0.1", "split": {"partitions": 7}}, "--set")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(sorted(SHAPES.values())),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["hf_token", "api_key", "sas", "dsn"]), inner)
        ),
    )
)
def test_may_hold_secrets_false_means_redact_is_identity(value: object) -> None:
    encoded = msgspec.json.encode(value)
    if not may_hold_secrets(encoded):
        assert redact(value) == value
        assert list(secret_paths(value)) == []


@given(st.text(min_size=1).map(lambda text: "q7#" + text))
def test_redact_url_loses_its_password(password: str) -> None:
    quoted = quote(password, safe="")
    assert quoted not in redact_text(f"could not connect to postgresql://user:{quoted}@host/db: refused")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip  # noqa: E501
def test_redact_never_raises_and_is_idempotent(value: object) -> None:
    once = redact(value)
    assert repr(redact(once)) == repr(once)


@pytest.mark.parametrize(
    "piece",
    ["A", "a:", "de:ad:", "9", "a-", "x://", "x://a:", "a=b@://", "'", "eyJ", "-----BEGIN ", "hf_a"],
)
def test_redact_megabytes_takes_linear_time(piece: str) -> None:
    # were it so, this would take hours: an exception with an encoded image in it would hang the attempt that failed
    text = piece * 50_000
    assert redact_text(f"{text} password=geheim") == f"{text} password=***"


def test_error_text_long_is_cut_to_limit() -> None:
    told = presentable("begin " + "A" * 1_000_000 + " end", 100)
    assert len(told) < 200
    assert told.startswith("begin AAA")
    assert told.endswith("A end")
    assert "999910 characters left out" in told
    assert presentable("short password=geheim", 100) == "short password=***"
    # the name of a file that is no UTF-8, and a character that PostgreSQL has no place for
    assert presentable("no such file: \udcff\x00", 100) == "no such file: \\udcff\\x00"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"db_password": "horse", "rate": 0.1, "max_tokens": "12"}, ["horse"]),
        ({"a": [{"api_key": "staple"}], "hf_token": ["x", "y"]}, ["staple", "x", "y"]),
        ({"credentials": {"user": "bob", "more": {"k": "v"}}}, ["bob", "v"]),
        ({"storage_options": {"secret": "horse", "region": "eu-west-1"}}, ["horse"]),
        ({"credentials": "/etc/creds.json", "password": None}, []),
    ],
)
def test_secret_values_are_those_under_keys_of_secrets(value: Any, expected: list[str]) -> None:
    assert list(secret_values(value)) == expected
