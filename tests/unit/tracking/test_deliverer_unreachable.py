"""Why MLflow's server could not be reached, in one sentence."""

from __future__ import annotations

import pytest

from trainflow.tracking.deliverer import unreachable

_API = "API request to http://10.0.0.1:5000/api/2.0/mlflow/experiments/get-by-name failed with "
_POOL = (
    _API + "exception HTTPConnectionPool(host='10.0.0.1', port=5000): Max retries exceeded with url: "
    "/api/2.0/mlflow/experiments/get-by-name?experiment_name=x (Caused by {})"
)
_HINT = ": is MLflow running there, and is tracking.uri right?"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            _POOL.format('NewConnectionError("...: Failed to establish: [Errno 111] Connection refused")'),
            "http://10.0.0.1:5000 cannot be reached (connection refused)" + _HINT,
        ),
        (
            _POOL.format("NameResolutionError(\"...: Failed to resolve 'x' ([Errno -2] Name or service not known)\")"),
            "http://10.0.0.1:5000 cannot be reached (no such host)" + _HINT,
        ),
        (
            "HTTPSConnectionPool(host='mlflow.example.com', port=443): Read timed out. (read timeout=15)",
            "https://mlflow.example.com:443 cannot be reached (no answer in time)" + _HINT,
        ),
        (
            "HTTPSConnectionPool(host='m', port=443): Max retries (Caused by SSLError(1, '[SSL: "
            "CERTIFICATE_VERIFY_FAILED] certificate verify failed'))",
            "https://m:443 cannot be reached (its TLS certificate is not accepted)" + _HINT,
        ),
        (
            _API + "error code 401 != 200. Response body: ''",
            "http://10.0.0.1:5000 refuses the login (401): check MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN",
        ),
        (
            _API + "error code 503 != 200. Response body: 'busy'",
            "http://10.0.0.1:5000 answers with error 503: look into the log of that server",
        ),
        (_API + "error code 404 != 200. Response body: ''", None),
        ("database is locked", None),
        ("Connection refused", None),
    ],
)
def test_unreachable_reason_is_one_sentence(said: str, sentence: str | None) -> None:
    assert unreachable(said) == sentence
