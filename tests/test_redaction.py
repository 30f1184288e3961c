import pytest

from sendback.redaction import shown_url, shown_wrong, split_url

WRONG = [
    "smtp://u:hunter2@[::1",
    "smtp://u:hunter2@\u2100",
    "smtp://u:hunter2@relay:99999",
    "smtp://u:hunter2@",
    "smtp://u:hunter2",
    "smtp://hunter2@relay",
    "smtp:/u:hunter2@relay",
    "smtp:u:hunter2@relay",
    "u:hunter2@relay:25",
    "smtp://u:p@hunter2",
    "smtp://u:p,hunter2@relay",
    "smtp://u:/hunter2@relay",
    "smtp://relay.example,smtp://u:hunter2@relay",
    "smtp://relay?password=hunter2",
    "smtp://relay#hunter2",
    "smtp://relay/@hunter2",
    "relay u hunter2",
    "['smtp://u:hunter2@relay']",
    "smtp://u:\u200bhunter2\n@relay",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_value_never_shows_a_password(text):
    assert "hunter2" not in shown_wrong(text)
    assert "hunter2" not in shown_wrong(text.upper())
    if text != "smtp://u:p@hunter2":  # which is a URL whose host has an odd name
        assert "hunter2" not in shown_url(text)


@pytest.mark.parametrize(
    "text", ["", "dns", "capture", "smtp://relay:99999", "http://[::1]:25/x, smtp://b", "smtp://"]
)
def test_a_wrong_value_without_a_password_is_shown(text):
    assert shown_wrong(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://example.com/hook", "https://example.com/hook"),
        ("https://u:x@example.com:8443/hook?token=x#y", "https://***@example.com:8443/hook?***"),
        ("https://token@example.com/", "https://***@example.com/"),
        ("postgresql://u:p@h:5432/db", "postgresql://***@h:5432/db"),
        ("https://u:p%40@[::1]/", "https://***@[::1]/"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_password_and_query(text, shown):
    assert shown_url(text) == shown


@pytest.mark.parametrize("text", [WRONG[0], WRONG[1], WRONG[2]])
def test_the_error_about_a_url_does_not_repeat_it(text):
    with pytest.raises(ValueError, match="cannot be read") as caught:
        split_url(text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
