// What a browser's visit to the pages needs: Debian's Chromium, steps with names, and no patience for complaints on the
// console. The test that starts a visit says in the environment where Chromium and playwright-core are.
import { createRequire } from "node:module";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";

const { BROWSER_MODULES, BROWSER_PROGRAM } = process.env;
const { chromium } = createRequire(join(BROWSER_MODULES, "package.json"))("playwright-core");
/// Milliseconds.
const PATIENCE = 20_000;

/// Begins a visit to an origin; pictures go to the directory `shots`. `current` says which page is being looked at.
/// A step that fails ends the process with status 1, with a picture and the page's source.
export async function start(origin, shots, current) {
  mkdirSync(shots, { recursive: true });
  const browser = await chromium.launch({
    executablePath: BROWSER_PROGRAM,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"],
  });
  const complaints = [];
  let expected = null;

  async function newPage(options = {}) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    page.on("console", (message) => {
      if (message.type() === "error" && !(expected && expected.test(message.text()))) complaints.push(`${page.url()}: ${message.text()}`);
    });
    page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error}`));
    page.on("request", (request) => {
      if (!request.url().startsWith(origin)) complaints.push(`asked for ${request.url()}`);
    });
    return page;
  }

  async function step(name, work) {
    try {
      await work();
      assert.deepEqual(complaints, [], "the console");
    } catch (error) {
      await current().screenshot({ path: join(shots, "failed.png"), fullPage: true }).catch(() => {});
      writeFileSync(join(shots, "failed.html"), await current().content().catch(() => ""));
      console.error(`failed: ${name} at ${current().url()}\n${error.stack}`);
      await browser.close();
      process.exit(1);
    }
    console.log(`passed: ${name}`);
  }

  // A step in which the browser itself complains on the console: of a status, or of a server that is away.
  async function complaining(name, pattern, work) {
    expected = pattern;
    await step(name, work);
    expected = null;
  }

  // A step in which the server refuses something.
  const refused = (name, status, work) => complaining(name, new RegExp(`status of ${status}`), work);

  // Playwright's own waiting evaluates strings in the page, which the pages' policy forbids, as it should.
  async function until(what, condition, argument) {
    const deadline = Date.now() + PATIENCE;
    while (!(await current().evaluate(condition, argument))) {
      if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  const heading = (text) => current().getByRole("heading", { level: 1, name: text }).waitFor();
  const notice = (text) => current().locator(".notice", { hasText: text }).waitFor();
  const go = (path) => current().goto(origin + path);

  // Fails when the page is wider than its window, and takes a picture.
  async function shoot(name) {
    const page = current();
    const { width } = page.viewportSize();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `${name} is ${wide} pixels wide`);
    await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
  }

  async function end() {
    await browser.close();
    console.log("all passed");
  }

  return { newPage, step, refused, complaining, until, heading, notice, go, shoot, end };
}
