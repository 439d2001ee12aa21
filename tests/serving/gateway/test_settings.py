import re

import pytest
from pydantic import ValidationError

from data.errors import SettingsError
from serving.batching.settings import BatchSettings
from serving.gateway.settings import ServingSettings, read_settings


def test_the_defaults_listen_at_home_only():
    settings = read_settings({"PATH": "/bin"})
    assert settings == ServingSettings()
    assert settings.host == "127.0.0.1"


def test_values_are_read():
    settings = read_settings({"MATJIP_PORT": "9000", "MATJIP_STORE_URL": "postgresql://u@h/d"})
    assert settings.port == 9000
    assert settings.store_url == "postgresql://u@h/d"


def test_every_wrong_value_is_named_at_once_and_no_password_is_shown():
    with pytest.raises(SettingsError) as refused:
        read_settings(
            {
                "MATJIP_PORT": "ninety",
                "MATJIP_MAX_REVIEWS": "0",
                "MATJIP_STORE_URL": "mysql://u:secret@h/d",
                "MATJIP_MAX_REVEIWS": "5",
            }
        )
    said = str(refused.value)
    for part in ("MATJIP_PORT: 'ninety'", "MATJIP_MAX_REVIEWS: '0'", "MATJIP_STORE_URL"):
        assert part in said
    assert "did you mean MATJIP_MAX_REVIEWS" in said
    assert "secret" not in said


def test_batching_and_admission_follow_the_settings():
    settings = read_settings(
        {"MATJIP_MAX_BATCH_TOKENS": "512", "MATJIP_MAX_QUEUE_S": "2", "MATJIP_RESERVE_MIB": "64"}
    )
    assert settings.batching == BatchSettings(max_batch_tokens=512, max_queue_s=2.0)
    assert settings.admission().reserve_bytes == 64 * 2**20
    for name in ("MATJIP_DEADLINE_S", "MATJIP_STUCK_S"):
        with pytest.raises(SettingsError, match=f"{name}: '0'"):
            read_settings({name: "0"})
    with pytest.raises(SettingsError, match="did you mean MATJIP_MAX_BATCH_TOKENS"):
        read_settings({"MATJIP_MAX_BATCH_TOKEN": "512"})
    assert not set(BatchSettings.model_fields) & set(ServingSettings.model_fields)


def test_other_parts_variables_are_left_alone():
    environment = {"MATJIP_TEST_POSTGRES_URL": "x", "MATJIP_DEMO": "y"}
    assert read_settings(environment) == ServingSettings()


def test_settings_do_not_change_and_do_not_show_the_store():
    settings = ServingSettings(store_url="postgresql://u:secret@h/d")
    assert "secret" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"GUARDRAILS": "maybe"}, "MATJIP_GUARDRAILS: 'maybe'"),
        ({"GUARDRAIL_POLL_S": "0"}, "MATJIP_GUARDRAIL_POLL_S: '0'"),
        ({"WEBHOOK_URL": "ftp://t0ken@host/"}, "MATJIP_WEBHOOK_URL: its value"),
        ({"WEBHOOK_SECRET": "t0ken"}, "MATJIP_WEBHOOK_SECRET: its value"),
        ({"WEBHOOK_URL": "https://host/t0ken"}, "set without MATJIP_WEBHOOK_SECRET"),
        ({"WEBHOOK_SECRET": "t0ken-and-more-of-it"}, "set without MATJIP_WEBHOOK_URL"),
    ],
)
def test_guardrails_and_notices_are_set_up_whole_and_no_secret_is_shown(given, words):
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        read_settings({f"MATJIP_{name}": value for name, value in given.items()})
    assert "t0ken" not in str(caught.value)
    told = read_settings(
        {"MATJIP_WEBHOOK_URL": "https://host/t0ken", "MATJIP_WEBHOOK_SECRET": "t0ken" * 4}
    )
    assert "t0ken" not in repr(told)


@pytest.mark.parametrize(
    "token", ["짧다", "short", "with a space in it all", "한글로 된 관리자 토큰입니다"]
)
def test_a_token_that_could_be_guessed_or_not_be_sent_is_refused_and_not_shown(token):
    with pytest.raises(SettingsError, match="MATJIP_ADMIN_TOKEN") as refused:
        read_settings({"MATJIP_ADMIN_TOKEN": token})
    assert token not in str(refused.value)
    assert "open-the-kitchen" not in repr(ServingSettings(admin_token="open-the-kitchen-door"))
