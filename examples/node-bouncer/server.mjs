// A Sendback server for tests: `sendback serve` on free ports, with a store of its own.
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

export class Sendback {
  // Apply a setup file to an empty store, and serve it.
  static async start(setup) {
    const server = new Sendback();
    server.folder = mkdtempSync(join(tmpdir(), "sendback-"));
    server.environment = {
      ...process.env,
      SENDBACK_DATA_DIR: join(server.folder, "data"),
      SENDBACK_HTTP_LISTEN: "127.0.0.1:0",
      SENDBACK_SMTP_LISTEN: "127.0.0.1:0",
      SENDBACK_DNS: "off",
      SENDBACK_SEND_BOUNCE_RATE: "0",
      SENDBACK_TEST_VERDICTS: "true",
    };
    await server.command("db", "create");
    await server.command("rules", "apply", setup);
    const ready = join(server.folder, "ready.json");
    server.process = spawn("sendback", ["serve", "--ready-file", ready], {
      env: server.environment,
      stdio: ["ignore", "inherit", "inherit"],
    });
    while (!existsSync(ready)) {
      if (server.process.exitCode !== null) throw new Error("sendback serve has ended");
      await sleep(20);
    }
    server.smtp = JSON.parse(readFileSync(ready)).smtp;
    return server;
  }

  async stop() {
    this.process.kill();
    await new Promise((resolve) => this.process.once("exit", resolve));
    rmSync(this.folder, { recursive: true });
  }

  async command(...words) {
    return (await run("sendback", words, { env: this.environment })).stdout;
  }

  async json(...words) {
    return JSON.parse(await this.command(...words, "--json"));
  }

  // Deliver a mail by SMTP; return its message ID. `verdicts`: { spf, dkim, dmarc, "dmarc-policy" }.
  async receive(from, to, verdicts) {
    const socket = connect(this.smtp.port, this.smtp.host);
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    const given = Object.entries(verdicts).map((pair) => pair.join(":"));
    const mail = `From: <${from}>\r\nTo: <${to}>\r\nSubject: Hello\r\n\r\nHello!\r\n.`;
    let reply = await replyFrom(lines);
    for (const command of [
      "EHLO mx.sender.example",
      `MAIL FROM:<${from}> XSENDBACK-VERDICTS=${given}`,
      `RCPT TO:<${to}>`,
      "DATA",
      mail,
    ]) {
      socket.write(`${command}\r\n`);
      reply = await replyFrom(lines);
    }
    socket.end("QUIT\r\n");
    return reply.split(" ")[2]; // 250 2.6.0 MESSAGE-ID Message accepted
  }

  // Wait until the rules of a message have ended.
  async processed(messageId) {
    for (;;) {
      const queued = await this.json("messages", "list", "--state", "queued");
      if (!queued.some((message) => message.message_id === messageId)) return;
      await sleep(50);
    }
  }

  // The bounces of a message: each with `recipient` and `raw`.
  async bounces(messageId) {
    const all = await this.json("outbox", "list");
    const found = all.filter((bounce) => bounce.original_message_id === messageId);
    for (const bounce of found) {
      bounce.raw = await this.command("outbox", "show", bounce.message_id, "--raw");
    }
    return found;
  }
}

async function replyFrom(lines) {
  for (;;) {
    const { value = "421 the connection was closed" } = await lines.next();
    if (value[0] > "3") throw new Error(`refused: ${value}`);
    if (value[3] !== "-") return value;
  }
}
