"""The proxy that the environment names, and the message about an unusable one."""

from __future__ import annotations

import pytest

from orchestrator.proxy import Proxy, proxy_for

URL = "https://api.wpengineapi.com/v1"


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, Proxy("http://p:3128", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "127.0.0.1:3128"}, Proxy("http://127.0.0.1:3128", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": " proxy.local \n"}, Proxy("http://proxy.local", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "u:p%40@p:3128"}, Proxy("http://u:p%40@p:3128", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "[::1]:3128"}, Proxy("http://[::1]:3128", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "http://big", "https_proxy": "http://small"}, Proxy("http://small", "https_proxy")),
        ({"ALL_PROXY": "http://all"}, Proxy("http://all", "ALL_PROXY")),
        ({"ALL_PROXY": "http://all", "HTTPS_PROXY": "http://p"}, Proxy("http://p", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p", "no_proxy": "localhost, .wpengineapi.com"}, None),
        ({"HTTPS_PROXY": "http://p", "no_proxy": "*.wpengineapi.com"}, None),
        ({"HTTPS_PROXY": "http://p", "no_proxy": "API.wpengineapi.com"}, None),
        (
            {"HTTPS_PROXY": "http://p", "no_proxy": "engineapi.com,,pi.wpengineapi"},
            Proxy("http://p", "HTTPS_PROXY"),
        ),
    ],
)
def test_the_proxy_is_chosen_as_curl_does(environment: dict[str, str], proxy: Proxy | None) -> None:
    assert proxy_for(URL, environment) == proxy


def test_no_proxy_may_name_a_port_and_the_scheme_decides_which_variable_counts() -> None:
    environment = {"http_proxy": "http://p:1", "no_proxy": "127.0.0.1:8080"}
    assert proxy_for("http://127.0.0.1:8080/v1", environment) is None
    assert proxy_for("http://127.0.0.1:8081/v1", environment) == Proxy("http://p:1", "http_proxy")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks5://p:1080", "names a socks5 proxy, which cannot be used"),
        ("socks5h://user:s3cret@p:1080", "names a socks5h proxy"),
        ("http://", "is not the address of a proxy"),
        ("http://p:s3cret", "is not the address of a proxy"),
        ("http://p:99999", "is not the address of a proxy"),
        ("s3cret word", "is not the address of a proxy"),
        ("http://[::1", "is not the address of a proxy"),
    ],
)
def test_the_message_about_an_unusable_proxy_names_its_variable_and_not_its_value(value: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^HTTPS_PROXY {words}.*http://host:port$") as raised:
        proxy_for(URL, {"HTTPS_PROXY": value})
    assert "s3cret" not in str(raised.value)
