// Two softphones in Debian's Chromium that speak SIP over the browser's own WebSocket, one of them in TLS. They register
// with the server behind the appliance, and one calls the other. The test `softphones` starts this; it says in the
// environment where the appliance listens. The session descriptions are for show: no media flows.
import { existsSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import assert from "node:assert/strict";
import { start } from "./visitor.mjs";

const { WS, WSS, ORIGIN, SHOTS, DONE } = process.env;
const { newPage, step, complaining, end } = await start(ORIGIN, SHOTS, () => page);
const DOMAIN = "lab.example";

/// What runs in the page: a user agent that says what it is told and keeps what it hears.
function agent({ url, user }) {
  const host = `${Math.random().toString(36).slice(2)}.invalid`;
  const transport = url.startsWith("wss:") ? "WSS" : "WS";
  const socket = new WebSocket(url, "sip");
  const heard = [];
  let number = 0;
  const content = (body) =>
    `${body ? "Content-Type: application/sdp\r\n" : ""}Content-Length: ${body.length}\r\n\r\n${body}`;
  const lines = (message, name) =>
    message.split("\r\n\r\n")[0].split("\r\n").filter((line) => line.startsWith(`${name}: `));
  window.phone = {
    contact: `<sip:${user}@${host};transport=ws>`,
    opened: new Promise((resolve, reject) => {
      socket.onopen = () => resolve(socket.protocol);
      socket.onerror = () => reject(new Error(`no WebSocket with ${url}`));
    }),
    lines,
    request(method, uri, to, callId, more = "", body = "") {
      number += 1;
      socket.send(
        `${method} ${uri} SIP/2.0\r\nVia: SIP/2.0/${transport} ${host};branch=z9hG4bK${user}${number}\r\n` +
          `Max-Forwards: 70\r\nFrom: <sip:${user}@lab.example>;tag=${user}\r\nTo: ${to}\r\nCall-ID: ${callId}\r\n` +
          `CSeq: ${method === "ACK" ? number - 1 : number} ${method}\r\nContact: ${this.contact}\r\n${more}${content(body)}`,
      );
    },
    respond(request, status, body = "") {
      const copied = ["Via", "Record-Route", "From", "Call-ID", "CSeq"].flatMap((name) => lines(request, name));
      const to = lines(request, "To")[0];
      const tagged = to.includes(";tag=") ? to : `${to};tag=${user}`;
      socket.send(`SIP/2.0 ${status}\r\n${copied.join("\r\n")}\r\n${tagged}\r\nContact: ${this.contact}\r\n${content(body)}`);
    },
    // The next message that begins so; what else comes before it is passed over.
    async hear(start) {
      const deadline = Date.now() + 20_000;
      while (Date.now() < deadline) {
        while (heard.length > 0) {
          const message = heard.shift();
          if (message.startsWith(start)) return message;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      throw new Error(`${user} waits in vain for ${start}`);
    },
    close: () => socket.close(),
  };
  socket.onmessage = ({ data }) => heard.push(data);
  return window.phone.opened;
}

/// A page of the origin that may connect, with a phone in it.
async function phone(url, user) {
  const page = await newPage();
  await page.goto(`${ORIGIN}/`);
  assert.equal(await page.evaluate(agent, { url, user }), "sip", "the subprotocol");
  return page;
}

// Where the phones' page comes from: a host as private as the appliance, or browsers keep it away.
const pages = createServer((_, response) => response.setHeader("content-type", "text/html").end("<title>Phone</title>"));
pages.listen(new URL(ORIGIN).port, new URL(ORIGIN).hostname);

const sdp = (port) =>
  `v=0\r\no=- 1 1 IN IP4 10.61.0.10\r\ns=-\r\nc=IN IP4 10.61.0.10\r\nt=0 0\r\nm=audio ${port} RTP/AVP 0\r\n`;
const in_page = (page, work, argument) => page.evaluate(work, argument);

/// Asks the test for something, and waits until it has done it: it leaves a file then.
async function please(wish) {
  console.log(`please: ${wish}`);
  for (let tries = 0; !existsSync(DONE); tries += 1) {
    assert.ok(tries < 1000, wish);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  rmSync(DONE);
}

let page = await newPage();

await complaining("a page of another origin is turned away", /403|WebSocket/, async () => {
  await page.goto("about:blank");
  await assert.rejects(page.evaluate(agent, { url: WS, user: "1001" }), /no WebSocket/);
});

let caller;
let called;
await step("both register with the server, by WebSocket and by WebSocket in TLS", async () => {
  caller = await phone(WS, "1001");
  called = await phone(WSS, "1002");
  for (const [page, user] of [[caller, "1001"], [called, "1002"]]) {
    const answer = await in_page(page, async ({ user, domain }) => {
      window.phone.request("REGISTER", `sip:${domain}`, `<sip:${user}@${domain}>`, `register-${user}`, "Expires: 600\r\n");
      return window.phone.hear("SIP/2.0 ");
    }, { user, domain: DOMAIN });
    assert.match(answer, /^SIP\/2\.0 200 /);
    const contact = await in_page(page, () => window.phone.contact);
    assert.ok(answer.includes(`Contact: ${contact}`), `${contact} in\n${answer}`);
  }
});

await step("one calls the other, who answers and hangs up", async () => {
  await in_page(caller, ({ domain, body }) => {
    window.phone.request("INVITE", `sip:1002@${domain}`, `<sip:1002@${domain}>`, "call", "", body);
  }, { domain: DOMAIN, body: sdp(20000) });
  const invite = await in_page(called, async () => {
    const invite = await window.phone.hear("INVITE");
    window.phone.respond(invite, "180 Ringing");
    return invite;
  });
  assert.match(invite, /\r\nVia: SIP\/2\.0\/WSS 10\.61\.0\.1:8444;/);
  assert.match(invite, /\r\nContact: <sip:1001@10\.61\.0\.1:8444;transport=ws>\r\n/);
  assert.match(invite, /\r\nc=IN IP4 10\.61\.0\.1\r\n/);
  await in_page(caller, () => window.phone.hear("SIP/2.0 180"));
  await in_page(called, ({ invite, body }) => window.phone.respond(invite, "200 OK", body), { invite, body: sdp(20002) });
  const ok = await in_page(caller, async () => {
    const ok = await window.phone.hear("SIP/2.0 200");
    const [to] = window.phone.lines(ok, "To");
    const target = window.phone.lines(ok, "Contact")[0].match(/<(.*)>/)[1];
    const routes = window.phone.lines(ok, "Record-Route").reverse().map((line) => line.replace("Record-Route", "Route"));
    window.phone.request("ACK", target, to.slice(4), "call", routes.map((line) => `${line}\r\n`).join(""));
    return ok;
  });
  assert.match(ok, /\r\nContact: <sip:1002@10\.61\.0\.1:8080;transport=ws>\r\n/);
  await in_page(called, () => window.phone.hear("ACK"));
  await please("look at the call");
  await in_page(called, (invite) => {
    const [from] = window.phone.lines(invite, "From");
    const target = window.phone.lines(invite, "Contact")[0].match(/<(.*)>/)[1];
    const routes = window.phone.lines(invite, "Record-Route").map((line) => `${line.replace("Record-Route", "Route")}\r\n`);
    window.phone.request("BYE", target, from.slice(6), "call", routes.join(""));
  }, invite);
  await in_page(caller, async () => window.phone.respond(await window.phone.hear("BYE"), "200 OK"));
  assert.match(await in_page(called, () => window.phone.hear("SIP/2.0 ")), /^SIP\/2\.0 200 /);
});

await step("one that is gone cannot be called, and the caller is told so at once", async () => {
  await in_page(called, () => window.phone.close());
  await please("wait until it is gone");
  const answer = await in_page(caller, ({ domain, body }) => {
    window.phone.request("INVITE", `sip:1002@${domain}`, `<sip:1002@${domain}>`, "second", "", body);
    return window.phone.hear("SIP/2.0 5").catch(() => window.phone.hear("SIP/2.0 4"));
  }, { domain: DOMAIN, body: sdp(20000) });
  assert.match(answer, /^SIP\/2\.0 (503|500|480) /);
});

pages.close();
await end();
