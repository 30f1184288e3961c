// Tests of bouncer.mjs: real mail, real rules, and verdicts that each test chooses.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { SESClient, SendBounceCommand } from "@aws-sdk/client-ses";
import { Sendback } from "./server.mjs";

const mail = { from: "ann@sender.example", to: "bob@example.com", subject: "Hello", text: "Hello!" };
const failed = { spf: "FAIL", dkim: "FAIL", dmarc: "FAIL" };
let server;

before(async () => {
  server = await Sendback.start("setup.toml");
});

after(() => server.stop());

test("unauthenticated mail is bounced where its domain asks for that", async () => {
  const received = await server.receive({ ...mail, verdicts: { ...failed, dmarcPolicy: "reject" } });
  const [bounce, ...others] = await server.bounces(received, 10);
  assert.equal(others.length, 0);
  assert.equal(bounce.recipient, "ann@sender.example");
  const [{ final_recipient, action, status }] = bounce.dsn.recipients;
  assert.deepEqual([final_recipient, action, status], ["bob@example.com", "failed", "5.6.1"]);
  assert.match(bounce.dsn.explanation, /sending domain's DMARC policy/);
  assert.equal((await server.processed(received)).steps.length, 1);
});

for (const verdicts of [{ dmarc: "PASS" }, { ...failed, dmarcPolicy: "quarantine" }]) {
  test(`other mail is not bounced: ${JSON.stringify(verdicts)}`, async () => {
    const received = await server.receive({ ...mail, verdicts });
    await server.processed(received);
    assert.deepEqual(await server.bounces(received), []);
  });
}

test("mail to others is refused", async () => {
  await assert.rejects(server.receive({ ...mail, to: "bob@other.example" }), /422.*550 5\.1\.1/);
});

test("a day later it is too late for a bounce", async () => {
  const received = await server.receive({ ...mail, verdicts: { dmarc: "PASS" } });
  await server.call("POST", "clock", { advance: "25h" });
  const ses = new SESClient({
    endpoint: server.endpoint,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
  });
  const bounce = new SendBounceCommand({
    OriginalMessageId: received,
    BounceSender: "mailer-daemon@example.com",
    BouncedRecipientInfoList: [{ Recipient: "bob@example.com", BounceType: "DoesNotExist" }],
  });
  await assert.rejects(ses.send(bounce), { name: "MessageRejected" });
});
