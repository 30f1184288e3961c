"""The small S3 for buckets that are directories, called by boto3."""

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.partners.waiting import wait_for

SETUP = """
identities = ["example.com"]
active_rule_set = "main"

[buckets]
mail = "directory:mail"
other = "directory:other"
away = "endpoint:http://user:secret@127.0.0.1:9/"

[[rule_sets.main.rules]]
Name = "all"
Actions = [{ S3Action = { BucketName = "mail", ObjectKeyPrefix = "in" } }]
"""


def s3_of(server, key="test", secret="test", **options):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=options.pop("region", "us-east-1"),
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(**{"retries": {"total_max_attempts": 1}, **options}),
    )


@pytest.fixture
def server(running):
    instance = running()
    instance.set_up(SETUP)
    return instance


@pytest.fixture
def folder(server):
    return server.settings.data_dir / "mail"


@pytest.fixture
def s3(server):
    return s3_of(server)


def refused(call, **arguments):
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    error = raised.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]


def stored(server):
    """The key and the octets of a mail that the rule stored."""
    message = server.send_mail()
    server.steps(message)
    return f"in/{message}", (server.settings.data_dir / "mail/in" / message).read_bytes()


def test_what_a_rule_stored_is_read(server, s3):
    key, octets = stored(server)
    found = s3.get_object(Bucket="mail", Key=key)
    assert found["Body"].read() == octets
    assert found["ContentLength"] == len(octets)
    assert found["ETag"] == f'"{hashlib.md5(octets).hexdigest()}"'
    assert found["ContentType"] == "binary/octet-stream"
    assert abs(found["LastModified"] - datetime.now(UTC)) < timedelta(minutes=5)
    head = s3.head_object(Bucket="mail", Key=key)
    assert (head["ETag"], head["ContentLength"]) == (found["ETag"], len(octets))
    listed = s3.list_objects_v2(Bucket="mail")["Contents"]
    assert [(each["Key"], each["Size"], each["ETag"]) for each in listed] == [
        (key, len(octets), found["ETag"])
    ]


def test_an_object_keeps_its_headers(s3, folder):
    s3.put_object(
        Bucket="mail",
        Key="a/b.txt",
        Body=b"Hello",
        ContentType="text/plain; charset=utf-8",
        CacheControl="no-store",
        Metadata={"state": "bounced", "odd-one": "x y"},
    )
    assert (folder / "a/b.txt").read_bytes() == b"Hello"
    found = s3.get_object(Bucket="mail", Key="a/b.txt")
    assert found["Body"].read() == b"Hello"
    assert found["ContentType"] == "text/plain; charset=utf-8"
    assert found["CacheControl"] == "no-store"
    assert found["Metadata"] == {"state": "bounced", "odd-one": "x y"}
    listed = s3.list_objects_v2(Bucket="mail")["Contents"]
    assert [each["Key"] for each in listed] == ["a/b.txt"]


def test_a_file_in_its_place_has_none_of_its_headers(s3, folder):
    s3.put_object(Bucket="mail", Key="a", Body=b"Hello", Metadata={"state": "new"})
    (folder / "a").write_bytes(b"hello")
    found = s3.get_object(Bucket="mail", Key="a")
    assert (found["Body"].read(), found["Metadata"]) == (b"hello", {})
    assert found["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'


@pytest.mark.parametrize(
    ("asked", "octets", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=4-400", b"456789", "bytes 4-9/10"),
        ("bytes=-400", b"0123456789", "bytes 0-9/10"),
        ("bytes=5-2", b"0123456789", None),
        ("lines=1-2", b"0123456789", None),
        ("bytes=1-2,4-5", b"0123456789", None),
    ],
)
def test_ranges(s3, asked, octets, content_range):
    s3.put_object(Bucket="mail", Key="digits", Body=b"0123456789")
    found = s3.get_object(Bucket="mail", Key="digits", Range=asked)
    assert found["Body"].read() == octets
    assert found.get("ContentRange") == content_range
    assert found["ResponseMetadata"]["HTTPStatusCode"] == (206 if content_range else 200)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_ranges_beyond_the_object(s3, asked):
    s3.put_object(Bucket="mail", Key="digits", Body=b"0123456789")
    status = refused(s3.get_object, Bucket="mail", Key="digits", Range=asked)
    assert status == (416, "InvalidRange")


def test_conditions(s3):
    etag = s3.put_object(Bucket="mail", Key="a", Body=b"Hello")["ETag"]
    date = s3.head_object(Bucket="mail", Key="a")["LastModified"]
    key = {"Bucket": "mail", "Key": "a"}
    assert refused(s3.get_object, **key, IfNoneMatch=etag)[0] == 304
    assert refused(s3.get_object, **key, IfModifiedSince=date)[0] == 304
    assert refused(s3.get_object, **key, IfMatch='"x"') == (412, "PreconditionFailed")
    past = date - timedelta(seconds=1)
    assert refused(s3.get_object, **key, IfUnmodifiedSince=past) == (412, "PreconditionFailed")
    s3.get_object(**key, IfMatch=etag, IfUnmodifiedSince=past)
    s3.get_object(**key, IfNoneMatch='"x"', IfModifiedSince=date)
    assert refused(s3.put_object, **key, Body=b"", IfNoneMatch="*") == (412, "PreconditionFailed")
    s3.put_object(Bucket="mail", Key="b", Body=b"", IfNoneMatch="*")
    assert refused(s3.put_object, **key, IfMatch=etag)[1] == "NotImplemented"


def test_a_presigned_url(server, s3):
    s3.put_object(Bucket="mail", Key="ä b/c+d", Body=b"Hello")
    arguments = {"Bucket": "mail", "Key": "ä b/c+d", "ResponseContentType": "text/x-mail"}
    signer = s3_of(server, signature_version="s3v4")
    url = signer.generate_presigned_url("get_object", arguments)
    with urllib.request.urlopen(url) as found:
        assert (found.read(), found.headers["Content-Type"]) == (b"Hello", "text/x-mail")
    put = signer.generate_presigned_url("put_object", {"Bucket": "mail", "Key": "put"})
    urllib.request.urlopen(urllib.request.Request(put, b"new", method="PUT")).close()
    assert s3.get_object(Bucket="mail", Key="put")["Body"].read() == b"new"
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(url + "x")
    assert b"<Code>SignatureDoesNotMatch</Code>" in raised.value.read()
    raised.value.close()


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256", None])
def test_checksums(server, algorithm):
    s3 = s3_of(server, request_checksum_calculation="when_required")
    body = bytes(range(256)) * 3000
    extra = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    put = s3.put_object(Bucket="mail", Key="a", Body=body, **extra)
    found = s3.get_object(Bucket="mail", Key="a", ChecksumMode="ENABLED")
    assert found["Body"].read() == body  # botocore checks the checksum
    names = [f"Checksum{algorithm}"] if algorithm else []
    present = [name for name in found if name.startswith("Checksum") and name != "ChecksumType"]
    assert present == names
    assert [put[name] for name in names] == [found[name] for name in names]


# Check values of the catalogue of CRCs, for "123456789".
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CRC32", "y/Q5Jg=="),
        ("CRC32C", "4waSgw=="),
        ("CRC64NVME", "rosUhgp5mIg="),
    ],
)
def test_crcs(s3, name, value):
    put = {"Bucket": "mail", "Key": "a", "Body": b"123456789"}
    assert s3.put_object(**put, **{f"Checksum{name}": value})[f"Checksum{name}"] == value
    wrong = value.replace(value[0], "A", 1)
    assert refused(s3.put_object, **put, **{f"Checksum{name}": wrong}) == (400, "BadDigest")
    assert refused(s3.put_object, **put, ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")[1] == "BadDigest"
    assert refused(s3.put_object, **put, ContentMD5="AAAA")[1] == "InvalidDigest"


def test_copies(server, s3):
    key, octets = stored(server)
    s3.copy_object(Bucket="other", Key="done/ä", CopySource={"Bucket": "mail", "Key": key})
    assert s3.get_object(Bucket="other", Key="done/ä")["Body"].read() == octets
    tagged = s3.copy_object(
        Bucket="mail",
        Key=key,
        CopySource=f"mail/{key}",
        MetadataDirective="REPLACE",
        Metadata={"state": "bounced"},
        ContentType="message/rfc822",
    )
    assert tagged["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(octets).hexdigest()}"'
    found = s3.head_object(Bucket="mail", Key=key)
    assert (found["Metadata"], found["ContentType"]) == ({"state": "bounced"}, "message/rfc822")
    s3.copy_object(Bucket="other", Key="again", CopySource=f"mail/{key}", Metadata={"no": "no"})
    assert s3.head_object(Bucket="other", Key="again")["Metadata"] == {"state": "bounced"}
    copy = {"Bucket": "mail", "Key": key, "CopySource": f"mail/{key}"}
    assert refused(s3.copy_object, **copy) == (400, "InvalidRequest")
    condition = {"CopySourceIfNoneMatch": tagged["CopyObjectResult"]["ETag"]}
    assert refused(s3.copy_object, **{**copy, "Key": "new"}, **condition)[0] == 412
    assert refused(s3.copy_object, **{**copy, "CopySource": "mail/no"}) == (404, "NoSuchKey")
    assert refused(s3.copy_object, **{**copy, "CopySource": "mail"}) == (400, "InvalidArgument")


def test_deletion(s3, folder):
    s3.put_object(Bucket="mail", Key="a/b", Body=b"", Metadata={"x": "y"})
    s3.delete_object(Bucket="mail", Key="a/b")
    s3.delete_object(Bucket="mail", Key="a/b")
    assert refused(s3.get_object, Bucket="mail", Key="a/b") == (404, "NoSuchKey")
    assert refused(s3.head_object, Bucket="mail", Key="a/b") == (404, "404")
    assert "Contents" not in s3.list_objects_v2(Bucket="mail")
    s3.put_object(Bucket="mail", Key="a", Body=b"a file where an empty folder was")
    assert list((folder / ".sendback/uploads").iterdir()) == []


def test_buckets(server, s3):
    s3.head_bucket(Bucket="mail")
    assert refused(s3.head_bucket, Bucket="none") == (404, "404")
    assert refused(s3.get_object, Bucket="none", Key="a") == (404, "NoSuchBucket")
    with pytest.raises(ClientError, match=r"away is at http://.*127\.0\.0\.1:9") as raised:
        s3.get_object(Bucket="away", Key="a")
    assert "secret" not in str(raised.value)
    stranger = server.issue("111111111111", "root")
    theirs = s3_of(server, stranger.key.access_key, stranger.secret)
    assert refused(theirs.list_objects_v2, Bucket="mail") == (404, "NoSuchBucket")
    owner = {"ExpectedBucketOwner": "111111111111"}
    assert refused(s3.list_objects_v2, Bucket="mail", **owner) == (403, "AccessDenied")


def test_a_bucket_whose_directory_is_not_there_yet_is_empty(s3, folder):
    assert not folder.exists()
    assert s3.list_objects_v2(Bucket="mail")["KeyCount"] == 0
    assert refused(s3.get_object, Bucket="mail", Key="a") == (404, "NoSuchKey")
    s3.delete_object(Bucket="mail", Key="a")
    assert not folder.exists()


KEYS = ["a", "b/1", "b/2", "b/c/3", "b-", "b.txt", "d/e/f", "z", "ä", "\U0001f4e7/1", "sp ace+&<"]


def keys_of(answer):
    return [each["Key"] for each in answer.get("Contents", [])]


def prefixes_of(answer):
    return [each["Prefix"] for each in answer.get("CommonPrefixes", [])]


@pytest.fixture
def filled(s3):
    for key in KEYS:
        s3.put_object(Bucket="mail", Key=key, Body=key.encode())
    return s3


def test_listing_is_in_the_order_of_utf_8(filled):
    assert keys_of(filled.list_objects_v2(Bucket="mail")) == sorted(KEYS, key=str.encode)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("prefix", ["", "b", "b/", "b/c", "d/e", "none", "b/1"])
@pytest.mark.parametrize("delimiter", ["", "/", "e", "/c"])
def test_pages_have_all_keys_and_prefixes_once(filled, size, prefix, delimiter):
    paginator = filled.get_paginator("list_objects_v2")
    given = {"Prefix": prefix, "Delimiter": delimiter} if delimiter else {"Prefix": prefix}
    pages = list(paginator.paginate(Bucket="mail", PaginationConfig={"PageSize": size}, **given))
    keys, prefixes = [], []
    for key in sorted((key for key in KEYS if key.startswith(prefix)), key=str.encode):
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        if end < 0:
            keys.append(key)
        elif key[: end + len(delimiter)] not in prefixes:
            prefixes.append(key[: end + len(delimiter)])
    assert [key for page in pages for key in keys_of(page)] == keys
    assert [each for page in pages for each in prefixes_of(page)] == prefixes
    assert all(page["KeyCount"] <= size for page in pages)


def test_listing_begins_after_a_key(filled):
    found = filled.list_objects_v2(Bucket="mail", StartAfter="b/1", Delimiter="/")
    assert keys_of(found) == ["sp ace+&<", "z", "ä"]
    assert prefixes_of(found) == ["b/", "d/", "\U0001f4e7/"]
    assert keys_of(filled.list_objects_v2(Bucket="mail", StartAfter="b/2"))[0] == "b/c/3"
    with_owner = filled.list_objects_v2(Bucket="mail", MaxKeys=1, FetchOwner=True)
    assert with_owner["Contents"][0]["Owner"]["ID"] == "000000000000"
    assert filled.list_objects_v2(Bucket="mail", MaxKeys=0)["IsTruncated"] is False
    token = {"ContinuationToken": "%%%"}
    assert refused(filled.list_objects_v2, Bucket="mail", **token) == (400, "InvalidArgument")


def test_what_is_no_object_is_not_listed_or_read(s3, folder, tmp_path):
    s3.put_object(Bucket="mail", Key="real", Body=b"")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    (folder / ".x.0123abcd.partial").write_text("half")
    (folder / "empty").mkdir()
    assert keys_of(s3.list_objects_v2(Bucket="mail")) == ["real"]
    assert prefixes_of(s3.list_objects_v2(Bucket="mail", Delimiter="/")) == []
    for key in ("link", "out/secret", "../secret", "a/../../secret", ".x.0123abcd.partial",
                ".sendback/x", "empty", "real/", "real/x", "//secret"):  # fmt: skip
        assert refused(s3.get_object, Bucket="mail", Key=key) == (404, "NoSuchKey"), key
        s3.delete_object(Bucket="mail", Key=key)
    assert (tmp_path / "secret").read_text() == "secret"
    assert (folder / "link").is_symlink()


@pytest.mark.parametrize(
    "key", ["../a", "a/../../a", "a//b", "a/", "/a", "a/./b", ".sendback/a", "x" * 201, "a\x00b"]
)
def test_keys_that_cannot_be_written(s3, folder, key):
    assert refused(s3.put_object, Bucket="mail", Key=key, Body=b"") == (400, "InvalidArgument")
    copy = {"Bucket": "mail", "Key": key, "CopySource": "mail/a"}
    assert refused(s3.copy_object, **copy) == (400, "InvalidArgument")
    assert not folder.exists()


def test_a_key_is_an_object_or_a_folder(s3, folder, tmp_path):
    s3.put_object(Bucket="mail", Key="a/b", Body=b"")
    assert refused(s3.put_object, Bucket="mail", Key="a", Body=b"") == (400, "InvalidRequest")
    assert refused(s3.put_object, Bucket="mail", Key="a/b/c", Body=b"") == (400, "InvalidRequest")
    (folder / "out").symlink_to(tmp_path)
    assert refused(s3.put_object, Bucket="mail", Key="out/x", Body=b"") == (400, "InvalidRequest")
    assert not (tmp_path / "x").exists()
    assert list((folder / ".sendback/uploads").iterdir()) == []


def test_a_large_object_is_streamed(s3):
    body = bytes(range(256)) * (20 * 2**20 // 256)
    s3.put_object(Bucket="mail", Key="large", Body=body)
    assert s3.get_object(Bucket="mail", Key="large")["Body"].read() == body
    tail = s3.get_object(Bucket="mail", Key="large", Range="bytes=-1000")["Body"].read()
    assert tail == body[-1000:]


def test_an_object_that_is_too_large(server, s3, folder):
    connection = begun_upload(server, 64 * 2**20 + 1, b"")
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 400
    assert b"<Code>EntityTooLarge</Code>" in body
    assert b"<MaxSizeAllowed>67108864</MaxSizeAllowed>" in body
    connection.close()
    assert not folder.exists()


def begun_upload(server, octets, sent):
    """A presigned PUT of which only a part is sent."""
    signer = s3_of(server, signature_version="s3v4")
    url = urlsplit(signer.generate_presigned_url("put_object", {"Bucket": "mail", "Key": "a"}))
    connection = http.client.HTTPConnection(url.netloc, timeout=20)
    connection.putrequest("PUT", f"{url.path}?{url.query}")
    connection.putheader("Content-Length", str(octets))
    connection.endheaders(sent)
    return connection


def test_an_upload_that_breaks_off_leaves_nothing(server, s3, folder):
    connection = begun_upload(server, 1_000_000, bytes(600_000))
    wait_for(lambda: list(folder.glob(".sendback/uploads/*.partial")))
    connection.close()
    wait_for(lambda: not list(folder.glob(".sendback/uploads/*.partial")))
    assert s3.list_objects_v2(Bucket="mail")["KeyCount"] == 0


def test_what_a_crash_left_of_an_upload_is_deleted_by_one_an_hour_later(s3, folder, tmp_path):
    s3.put_object(Bucket="mail", Key="a", Body=b"1")
    uploads, outside = folder / ".sendback/uploads", tmp_path / "outside"
    outside.write_text("mine")
    left, alive, foreign, link = (
        uploads / name
        for name in (".a.01234567.partial", ".b.01234567.partial", "notes", ".c.01234567.partial")
    )
    for path in (left, alive, foreign):
        path.write_text("half")
    link.symlink_to(outside)
    for path, hours in ((left, 1.1), (alive, 0.9), (foreign, 1.1), (link, 1.1), (outside, 1.1)):
        past = time.time() - hours * 3600
        os.utime(path, (past, past), follow_symlinks=False)
    s3.put_object(Bucket="mail", Key="b", Body=b"2")
    assert sorted(uploads.iterdir()) == sorted([alive, foreign])
    assert outside.read_text() == "mine"
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="mail")["Contents"]] == ["a", "b"]


def test_who_only_claims_to_sign_for_s3_sends_no_large_body(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.addresses.http.port)
    connection.putrequest("PUT", "/mail/a")
    connection.putheader("Content-Length", str(70 * 2**20))
    credential = "Credential=test/20260301/us-east-1/s3/aws4_request"
    rest = "SignedHeaders=host, Signature=" + "0" * 64
    connection.putheader("Authorization", f"AWS4-HMAC-SHA256 {credential}, {rest}")
    connection.putheader("X-Amz-Date", "20260301T000000Z")
    connection.putheader("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
    connection.endheaders(bytes(100_000))
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Type"]) == (403, "application/xml")
    assert b"<Code>SignatureDoesNotMatch</Code>" in answer.read()
    connection.close()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("create_bucket", {"Bucket": "new"}),
        ("list_buckets", {}),
        ("list_objects", {"Bucket": "mail"}),
        ("get_bucket_acl", {"Bucket": "mail"}),
        ("delete_objects", {"Bucket": "mail", "Delete": {"Objects": [{"Key": "a"}]}}),
        ("get_object_tagging", {"Bucket": "mail", "Key": "a"}),
        ("put_object", {"Bucket": "mail", "Key": "a", "ServerSideEncryption": "AES256"}),
        ("put_object", {"Bucket": "mail", "Key": "a", "ACL": "public-read"}),
        ("put_object", {"Bucket": "mail", "Key": "a", "Tagging": "a=b"}),
        ("get_object", {"Bucket": "mail", "Key": "a", "VersionId": "1"}),
        ("create_multipart_upload", {"Bucket": "mail", "Key": "a"}),
        ("delete_bucket", {"Bucket": "mail"}),
    ],
)
def test_anything_else_is_not_implemented(s3, method, arguments):
    assert refused(getattr(s3, method), **arguments) == (501, "NotImplemented")


def test_signatures(server, s3):
    wrong = s3_of(server, secret="wrong")
    listing = {"Bucket": "mail"}
    assert refused(wrong.list_objects_v2, **listing) == (403, "SignatureDoesNotMatch")
    put = {"Bucket": "mail", "Key": "a", "Body": bytes(10_000_000)}
    assert refused(wrong.put_object, **put) == (403, "SignatureDoesNotMatch")
    unknown = s3_of(server, key="AKIAUNKNOWN")
    assert refused(unknown.list_objects_v2, **listing) == (403, "InvalidAccessKeyId")
    assert refused(wrong.head_object, Bucket="mail", Key="a") == (403, "403")


def test_a_users_policies_decide(server, s3):
    s3.put_object(Bucket="mail", Key="in/a", Body=b"a")
    s3.put_object(Bucket="mail", Key="secret", Body=b"b")
    user = server.issue("000000000000", "reader")
    statement = [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::mail/in/*"},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::mail",
         "Condition": {"StringEquals": {"s3:prefix": "in/"}}},
    ]  # fmt: skip
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    server.run(server.app.accounts.put_policy("000000000000", "reader", "limits", document))
    theirs = s3_of(server, user.key.access_key, user.secret)
    assert theirs.get_object(Bucket="mail", Key="in/a")["Body"].read() == b"a"
    theirs.head_object(Bucket="mail", Key="in/a")
    assert keys_of(theirs.list_objects_v2(Bucket="mail", Prefix="in/")) == ["in/a"]
    denied = (403, "AccessDenied")
    assert refused(theirs.get_object, Bucket="mail", Key="secret") == denied
    assert refused(theirs.list_objects_v2, Bucket="mail") == denied
    assert refused(theirs.put_object, Bucket="mail", Key="in/b", Body=b"") == denied
    assert refused(theirs.delete_object, Bucket="mail", Key="in/a") == denied
    copy = {"Bucket": "mail", "Key": "in/b", "CopySource": "mail/in/a"}
    assert refused(theirs.copy_object, **copy) == denied
