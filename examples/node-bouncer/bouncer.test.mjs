// Tests of bouncer.mjs: real mail, real rules, and verdicts that each test chooses.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Sendback } from "./server.mjs";

const failed = { spf: "FAIL", dkim: "FAIL", dmarc: "FAIL" };
let server;

before(async () => {
  server = await Sendback.start("setup.toml");
});

after(() => server.stop());

test("unauthenticated mail is bounced where its domain asks for that", async () => {
  const verdicts = { ...failed, "dmarc-policy": "reject" };
  const received = await server.receive("ann@sender.example", "bob@example.com", verdicts);
  await server.processed(received);
  const [bounce, ...others] = await server.bounces(received);
  assert.equal(others.length, 0);
  assert.equal(bounce.recipient, "ann@sender.example");
  assert.match(bounce.raw, /^Final-Recipient: rfc822; bob@example\.com\r?$/m);
  assert.match(bounce.raw, /^Status: 5\.6\.1\r?$/m);
  assert.match(bounce.raw, /sending domain's DMARC policy/);
});

for (const verdicts of [{ dmarc: "PASS" }, { ...failed, "dmarc-policy": "quarantine" }]) {
  test(`other mail is not bounced: ${JSON.stringify(verdicts)}`, async () => {
    const received = await server.receive("ann@sender.example", "bob@example.com", verdicts);
    await server.processed(received);
    assert.deepEqual(await server.bounces(received), []);
  });
}
