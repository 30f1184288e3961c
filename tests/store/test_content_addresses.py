"""The setting `content_store`: what it names, and what is never shown of it."""

import pytest

from sendback.config.loading import load
from sendback.config.readers import content_store
from sendback.config.settings import Settings
from sendback.config.types import ContentAddress
from sendback.store.engine.content.contents import open_store

S3 = "s3://mail/large/bodies?endpoint=http://127.0.0.1:9000&region=eu-west-1"


@pytest.mark.parametrize(
    ("database", "given", "kind"),
    [
        ("", "", "directory"),
        ("postgresql://u@h/d", "", "database"),
        ("", "database", "database"),
        ("postgresql://u@h/d", "directory", "directory"),
        ("", "s3://mail", "s3"),
    ],
)
def test_the_default_is_that_of_the_database(database, given, kind):
    settings = Settings(database=database, content_store=content_store(given))
    assert settings.content_address.kind == kind


def test_the_parts_of_a_url():
    address = content_store(S3)
    assert (address.kind, address.bucket, address.prefix) == ("s3", "mail", "large/bodies")
    assert address.options == {"endpoint": "http://127.0.0.1:9000", "region": "eu-west-1"}
    assert content_store(address.public_url) == address
    assert content_store("gs://mail/").prefix == ""


@pytest.mark.parametrize(
    "url",
    [
        S3.replace("s3://", "s3://id:hush%2Fhush@"),
        f"{S3}&access_key_id=id&secret_access_key=hush/hush",
    ],
)
def test_credentials_in_the_url_are_used_and_not_shown(url):
    address = content_store(url)
    assert address.secrets == {"access_key_id": "id", "secret_access_key": "hush/hush"}
    assert address.key == content_store(S3).key
    loaded = load({}, {"SENDBACK_CONTENT_STORE": url})
    for shown in (repr(address), str(address), address.public_url, repr(loaded.settings),
                  loaded.texts["content_store"]):  # fmt: skip
        assert "hush" not in shown
    assert "127.0.0.1" in loaded.texts["content_store"]


def test_stores_have_different_names():
    urls = (S3, "s3://mail/large", "s3://mail2/large", "gs://mail/large", f"{S3}x")
    assert len({content_store(url).key for url in urls}) == len(urls)


@pytest.mark.parametrize(
    "url",
    [
        S3,
        "s3://mail?virtual_hosted_style_request=true&region=eu-west-1",
        "gs://mail/x",
        "az://mail/x?account_name=a",
        "az://mail?account_name=devstoreaccount1&use_emulator=true",
    ],
)
def test_each_kind_can_be_opened(url, credentials):
    address = content_store(url)
    open_store(address.key, address, "").close()


def test_an_address_without_a_store_is_its_word():
    assert str(ContentAddress("database")) == "database"
    assert not ContentAddress("directory").is_object_store
