// A Sendback server for tests: `sendback serve` on free ports, with a store of its own. All else
// is done by HTTP, so the same methods work with a container.
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

export class Sendback {
  // Apply a setup file to an empty store, and serve it.
  static async start(setup) {
    const server = new Sendback();
    server.folder = mkdtempSync(join(tmpdir(), "sendback-"));
    const env = {
      ...process.env,
      SENDBACK_DATA_DIR: join(server.folder, "data"),
      SENDBACK_HTTP_LISTEN: "127.0.0.1:0",
      SENDBACK_SMTP_LISTEN: "127.0.0.1:0",
      SENDBACK_DNS: "off",
      SENDBACK_SEND_BOUNCE_RATE: "0",
      SENDBACK_TEST_VERDICTS: "true",
    };
    await run("sendback", ["db", "create"], { env });
    await run("sendback", ["rules", "apply", setup], { env });
    const ready = join(server.folder, "ready.json");
    const stdio = ["ignore", "inherit", "inherit"];
    server.process = spawn("sendback", ["serve", "--ready-file", ready], { env, stdio });
    while (!existsSync(ready)) {
      if (server.process.exitCode !== null) throw new Error("sendback serve has ended");
      await sleep(20);
    }
    const { http } = JSON.parse(readFileSync(ready));
    server.endpoint = `http://${http.host}:${http.port}`;
    return server;
  }

  async stop() {
    this.process.kill();
    await new Promise((resolve) => this.process.once("exit", resolve));
    rmSync(this.folder, { recursive: true });
  }

  async call(method, path, body) {
    const response = await fetch(`${this.endpoint}/_sendback/${path}`, {
      method,
      headers: { "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  // Receive a mail, { from, to, subject, text, verdicts }, as by SMTP; return its message ID.
  async receive(mail) {
    return (await this.call("POST", "messages", mail)).message_id;
  }

  // Return a received message with the steps of its rules, once these have ended.
  async processed(messageId) {
    for (;;) {
      const message = await this.call("GET", `messages/${messageId}`);
      if (message.processing !== "queued") return message;
      await sleep(20);
    }
  }

  // Return the bounces of a message; wait for the first one for so many seconds.
  async bounces(messageId, seconds = 0) {
    return (await this.call("GET", `bounces?original=${messageId}&wait=${seconds}s`)).bounces;
  }
}
