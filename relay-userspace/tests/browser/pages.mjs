// The pages as a person uses them, in Debian's Chromium. The test `pages` starts this beside a running appliance with
// live calls; what it was told is in its environment. It ends with status 0 and a line "passed: ..." for each step, or
// with what was wrong. Errors on the console fail it, but for those that a step expects.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";
import { start } from "./visitor.mjs";

const { SETUP_LINK, SHOTS, FINGERPRINT, CALLER } = process.env;
const NAME = "ann";
const PASSWORD = "a password of the test";
const NEW_PASSWORD = "another password of it";
const origin = new URL(SETUP_LINK).origin;
const { newPage, step, refused, until, heading, notice, go, shoot, end } = await start(origin, SHOTS, () => page);

async function signIn(password, name = NAME) {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

let page = await newPage({ viewport: { width: 1280, height: 900 } });

await refused("nobody gets in before there is an administrator", 403, async () => {
  for (const path of ["/", "/sign-in", "/sessions", "/api/v1/status", "/setup?token=guess"]) {
    const response = await go(path);
    assert.equal(response.status(), 403, path);
  }
  await go("/");
  await heading("Not set up yet");
});

await refused("the one-time link sets an administrator whose password is good enough", 422, async () => {
  await page.goto(SETUP_LINK);
  await page.getByLabel("Name").fill(NAME);
  await page.getByLabel("Password", { exact: true }).fill("something-else");
  await page.getByLabel("Password again").fill("something-other");
  await page.getByRole("button", { name: "Set and sign in" }).click();
  await notice("the passwords differ");
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByLabel("Password again").fill(PASSWORD);
  await page.getByRole("button", { name: "Set and sign in" }).click();
  await heading("Bridge");
  await notice("Signed in as ann");
});

await refused("the link works once", 403, async () => {
  const other = await newPage();
  assert.equal((await other.goto(SETUP_LINK)).status(), 403);
  await other.context().close();
});

await step("the status page says that calls work, and is live", async () => {
  await page.locator("#pill", { hasText: "Ready" }).waitFor();
  await page.getByRole("rowheader", { name: "office" }).waitFor();
  assert.equal(await page.locator(".figure").first().innerText(), "1", "one call");
  const before = await page.locator("#live dl").first().innerText();
  await until("other counters", (before) => document.querySelector("#live dl").innerText !== before, before);
});

await step("a live call is found by the filter, as one types", async () => {
  await page.getByRole("link", { name: "Sessions" }).first().click();
  await heading("Sessions");
  const rows = page.locator("#sessions tbody tr");
  await rows.first().waitFor();
  await page.getByLabel("Filter").fill("nobody at all");
  await page.locator(".empty", { hasText: "No call matches" }).waitFor();
  await page.getByLabel("Filter").fill(CALLER);
  await rows.filter({ hasText: CALLER }).first().waitFor();
  assert.match(page.url(), /q=/, "the filter is in the address");
  assert.equal(await page.evaluate(() => document.activeElement.id), "q", "the focus stays");
});

await step("what is typed before the scripts are there is not lost", async () => {
  const filter = page.getByLabel("Filter");
  let typed;
  const untilTyped = new Promise((resolve) => { typed = resolve; });
  await page.route("**/htmx.min.js", async (route) => {
    await untilTyped;
    await route.continue();
  });
  await page.goto(`${origin}/sessions`, { waitUntil: "commit" });
  await filter.fill("nobody at all");
  typed();
  await page.locator(".empty", { hasText: "No call matches" }).waitFor();
  await page.unroute("**/htmx.min.js");
  await filter.fill(CALLER);
  await page.locator("#sessions tbody tr", { hasText: CALLER }).first().waitFor();
});

await step("a call's details have its streams, and count on", async () => {
  await page.locator("#sessions tbody tr a").first().click();
  await heading("Session");
  await page.locator(".flow").nth(1).waitFor();
  const text = await page.locator(".flow").first().innerText();
  for (const word of ["Jitter", "DSCP in, out", "Lost", "From a wrong source", "destination"]) assert.ok(text.includes(word), `${word} in ${text}`);
  const score = await page.locator(".score").first().innerText();
  for (const word of ["MOS listening, talking", "Lost before the appliance", "Round trip to the sender"]) assert.ok(score.includes(word), `${word} in ${score}`);
  await until("other counters", (before) => document.querySelector(".flow").innerText !== before, text);
});

await step("a capture of the call is begun, ended, and downloaded as a file that capture programs know", async () => {
  await page.getByLabel("sealed").check();
  await page.getByRole("button", { name: "Capture this call" }).click();
  await page.getByRole("button", { name: "Stop" }).first().waitFor();
  // A few seconds of speech.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  await page.getByRole("button", { name: "Stop" }).first().click();
  await go("/diagnostics");
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("link", { name: "Download" }).first().click(),
  ]);
  const content = readFileSync(await download.path());
  assert.equal(content.readUInt32LE(0), 0x0a0d0d0a, "the section header block of pcapng");
  assert.ok(content.length > 20000, `${content.length} bytes`);
});

await step("the phones are listed", async () => {
  await page.getByRole("link", { name: "Phones" }).first().click();
  await heading("Phones");
  await page.locator("tbody tr").first().waitFor();
});

await step("a change is applied at once, and one that needs a restart waits for it, while the call goes on", async () => {
  await go("/configuration/protocols");
  await page.getByLabel("Timer T1 (ms)").fill("600");
  await page.getByRole("button", { name: "Apply" }).click();
  await notice("Applied: sip.timer_t1_ms");
  assert.equal(await page.getByLabel("Timer T1 (ms)").inputValue(), "600");
  await page.getByLabel("TCP connect timeout (ms)").fill("2500");
  await page.getByRole("button", { name: "Apply" }).click();
  await notice("In effect after the next start: sip.tcp_connect_timeout_ms");
  await go("/about");
  await notice("Waiting for a restart: sip.tcp_connect_timeout_ms");
  await go(`/sessions?q=${CALLER}`);
  await page.locator("#sessions tbody tr").first().waitFor();
});

await refused("a value that is not right is refused at its field, and the file stays", 422, async () => {
  await go("/configuration/protocols");
  await page.getByLabel("Timer T1 (ms)").fill("0");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator(".field.wrong", { hasText: "Timer T1" }).locator(".error", { hasText: "0 is out of range" }).waitFor();
  await page.getByLabel("Timer T1 (ms)").fill("soon");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator(".field.wrong .error", { hasText: "is not a whole number" }).waitFor();
  await page.getByRole("link", { name: "Revert" }).click();
  await until("the file's value", () => document.getElementById("sip.timer_t1_ms").value === "600");
});

await step("an earlier configuration is restored", async () => {
  await go("/configuration/history");
  const found = page.locator("tbody tr", { hasText: "found in the file" });
  await found.getByRole("button", { name: "Restore" }).click();
  await notice("is back");
  assert.equal(await page.locator(".notice.waiting").count(), 0, "nothing waits any more");
  await go("/configuration/protocols");
  assert.equal(await page.getByLabel("Timer T1 (ms)").inputValue(), "500");
});

await refused("a network that is not right is refused at its field", 422, async () => {
  await go("/configuration/networks");
  const field = page.getByLabel("SIP port, UDP").first();
  await field.fill("20000");
  await page.locator("#networks-form").getByRole("button", { name: "Apply" }).click();
  await page.locator(".error", { hasText: "SIP port 20000 is among the media ports" }).waitFor();
});

await step("an authentication entry is added, changed and removed; its password is never shown", async () => {
  await go("/authentication");
  await page.getByLabel("Registration id").fill("1001");
  await page.getByLabel("User name").fill("station1001");
  await page.getByLabel("Password", { exact: true }).fill("swordfish-of-the-test");
  await page.getByLabel("Aliases").fill("2001, 2002");
  await page.getByRole("button", { name: "Save" }).click();
  await notice("Entry 1001 is saved");
  await page.getByRole("link", { name: "Edit 1001" }).click();
  await page.getByLabel("User name").fill("station1001b");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("cell", { name: "station1001b" }).waitFor();
  assert.ok(!(await page.content()).includes("swordfish-of-the-test"));
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Remove 1001" }).click();
  await notice("Entry 1001 is removed");
});

await step("a certificate is looked at and trusted, but only when its fingerprint was compared", async () => {
  await go("/certificates");
  await page.getByRole("link", { name: "Look at it" }).click();
  await page.getByText("Not trusted:").first().waitFor();
  await page.locator("dd", { hasText: FINGERPRINT.slice(0, 4).toUpperCase().replace(/(..)(..)/, "$1:$2") }).first().waitFor();
  await page.screenshot({ path: join(SHOTS, "certificate-1280.png"), fullPage: true });
  await page.getByRole("button", { name: "Trust this certificate" }).click();
  await page.getByText("tick the box first").waitFor();
  await page.getByLabel("I have compared the fingerprint").check();
  await page.getByRole("button", { name: "Trust this certificate" }).click();
  await notice("is trusted");
  await page.locator(".tag.good", { hasText: "trusted" }).waitFor();
});

await step("a token opens the REST interface, for what its scope allows", async () => {
  await go("/administration");
  await page.locator("#token-name").fill("monitoring");
  await page.getByRole("button", { name: "Make a token" }).click();
  const token = await page.locator("#made-token").innerText();
  const ask = (method, path, headers) => page.context().request.fetch(origin + path, { method, headers: { cookie: "", ...headers }, maxRedirects: 0 });
  const bearer = { authorization: `Bearer ${token}` };
  const status = await ask("GET", "/api/v1/status", bearer);
  assert.equal((await status.json()).ready, true);
  assert.equal((await ask("GET", "/api/v1/status", { authorization: "Bearer guess" })).status(), 401);
  assert.equal((await ask("DELETE", "/api/v1/tokens/monitoring", bearer)).status(), 403, "a token to read");
});

await refused("a wrong password changes nothing, the right one ends other sessions", 422, async () => {
  const other = await newPage();
  await other.goto(`${origin}/sign-in`);
  await other.getByLabel("Name").fill(NAME);
  await other.getByLabel("Password").fill(PASSWORD);
  await other.getByRole("button", { name: "Sign in" }).click();
  await other.getByRole("heading", { level: 1, name: "Bridge" }).waitFor();
  await go("/administration");
  const change = async (present) => {
    await page.locator("#own-password").fill(present);
    await page.locator("#own-new").fill(NEW_PASSWORD);
    await page.locator("#own-repeated").fill(NEW_PASSWORD);
    await page.getByRole("button", { name: "Change", exact: true }).click();
  };
  await change("not my password");
  await notice("your present password is wrong");
  await change(PASSWORD);
  await notice("Your password is changed");
  await other.locator(".notice", { hasText: "You are signed out" }).waitFor();
  await other.context().close();
});

// Pictures for people: each page at both widths, light and dark; nothing is wider than the window.
const state = await page.context().storageState();
const PAGES = ["/", "/sessions", "/phones", "/configuration/networks", "/configuration/servers", "/certificates", "/authentication",
  "/configuration/protocols", "/configuration/survival", "/configuration/media", "/configuration/services", "/diagnostics", "/administration", "/configuration/history", "/about"];
for (const [width, height] of [[360, 740], [1920, 1080]]) {
  for (const colorScheme of ["light", "dark"]) {
    await step(`every page fits ${width} pixels, ${colorScheme}`, async () => {
      const main = page;
      page = await newPage({ viewport: { width, height }, colorScheme, storageState: state });
      const look = (name) => shoot(`${name}-${width}-${colorScheme}`);
      for (const path of PAGES) {
        await go(path);
        await page.getByRole("heading", { level: 1 }).waitFor();
        await look(path === "/" ? "status" : path.slice(1).replaceAll("/", "-"));
      }
      await go(`/sessions?q=${CALLER}`);
      await page.locator("#sessions tbody tr a").first().click();
      await page.locator(".flow").first().waitFor();
      await look("call");
      await page.context().close();
      page = main;
    });
  }
}

await step("everything can be reached by keyboard, beginning with the skip link", async () => {
  await go("/configuration/media");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "content");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "dscp.rtp");
  const unnamed = await page.evaluate(() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea")].filter((field) => !field.labels.length).length);
  assert.equal(unnamed, 0, "fields without a label");
});

await step("without scripts the pages do the same", async () => {
  const main = page;
  page = await newPage({ javaScriptEnabled: false, storageState: state });
  await go("/sessions");
  await page.getByLabel("Filter").fill(CALLER);
  await page.getByRole("button", { name: "Filter" }).click();
  await page.locator("#sessions tbody tr").first().waitFor();
  await go("/configuration/protocols");
  await page.getByLabel("Calls at a time").fill("9000");
  await page.getByRole("button", { name: "Apply" }).click();
  await notice("Applied: sip.max_calls");
  await page.context().close();
  page = main;
});

await step("a file that was broken by hand is told on every page", async () => {
  await go("/");
  console.log("please: break the file");
  await until("the message", async () => (await (await fetch("/about")).text()).includes("The configuration file is not valid"));
  await go("/configuration/media");
  await page.locator(".notice.failed", { hasText: "what ran before runs on" }).waitFor();
  console.log("please: mend the file");
  await until("the message's end", async () => !(await (await fetch("/about")).text()).includes("The configuration file is not valid"));
});

await refused("who has signed out is out, and wrong passwords are told and then have to wait", "4(01|29)", async () => {
  await go("/");
  await page.getByRole("button", { name: "Sign out" }).click();
  await heading("Sign in");
  await go("/administration");
  await heading("Sign in");
  for (let attempt = 0; attempt < 5; attempt++) {
    await signIn("wrong password");
    await notice("Name or password are wrong");
  }
  await signIn(NEW_PASSWORD);
  await notice("Too many wrong attempts");
});

await end();
